"""Runs with parameters and details files, and what stands in a figure: for the tests of the report's figures."""

import json

import numpy as np
from matplotlib.text import Text

from kdbench.report.figures.sheet import SCREEN
from tests.support.scenarios import A, runs

FOOTER = ["Suite s; recipe r1; commit 0123456789."]
SHEET = SCREEN.saying(FOOTER)


def setting(method, *top1, pair=A, usual=None, status="ok", version=1, **changed):
    """Runs of one method, one a seed; ``changed`` over its ``usual`` parameters."""
    params = json.dumps({**(usual or {}), **changed}, sort_keys=True)
    variant = " ".join(f"{k}={v}" for k, v in changed.items())
    return runs(
        method, *top1, pair=pair, params=params, variant=variant, status=status, method_version=version
    )


def tau(value, *top1, **more):
    """bickd, whose suite sets tau = 4 and mode = 'both'."""
    usual = {"tau": 4.0, "mode": "both", "beta": 1.0}
    changed = {} if value == 4.0 else {"tau": value}
    return setting("bickd", *top1, usual=usual, **changed, **more)


def keep(folder, row, **arrays):
    folder.mkdir(exist_ok=True, parents=True)
    np.savez_compressed(folder / f"{row['cell_id']}.npz", **arrays)


def texts(figure):
    return {text.get_text() for text in figure.findobj(Text)} - {""}
