"""The colour, dash and marker of every method: by its name alone, so the same in each figure of each report."""

from __future__ import annotations

import colorsys
import hashlib
from typing import NamedTuple

# Okabe and Ito's colours for the colour-blind without the yellow that vanishes on white, and four of Paul Tol's.
PALETTE = (
    "#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#882255", "#999933", "#332288",
    "#A6761D",
)  # fmt: skip
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
# 11 colours, 4 dashes and 7 markers have no common divisor: 308 places have looks of their own, and 28 neighbours
# differ in grey too. Arrow heads are for what leaves a panel.
MARKERS = "osD^PX*"
OWN_MARKERS = "pdhH8"  # of methods without a place here, and of settings
# Methods that have a look of the palette. Append new ones at the end: places are looks.
PLACES = (
    "kd", "ce", "dkd", "mlkd", "ctkd", "bickd", "dist", "lskd", "crd", "fitnet", "reviewkd",
    "at", "fsp", "nst", "ft", "pkt", "ab", "cc", "ofd", "rkd", "sp", "vid",
    "sskd", "tfkd", "ickd", "semckd", "srrl", "wsld", "itrd", "mgd", "simkd", "catkd", "diffkd",
    "kdpp", "nkd", "norm", "ofa", "uskd", "ckd", "crld", "dcd", "dkl", "rrd", "sdd",
    "srd", "ttm", "vkd", "wkd", "wttm", "abkd", "bkl", "deepkd", "dhkd", "ikd", "ldrld",
    "luminet", "rld", "rsd", "sld", "tekap", "gkl", "skd", "kd_twoview",
)  # fmt: skip


class Look(NamedTuple):
    """How a method is drawn: a hexadecimal colour, a dash and a marker of matplotlib."""

    color: str
    linestyle: str | tuple
    marker: str


def look(label: str) -> Look:
    """The look of a method, or of a setting of it such as 'dkd beta=2'.

    Methods of PLACES have looks of their own; that of any other follows from its name: a dark colour of any hue. A
    setting has a tint of its method's colour.
    """
    method = label.split()[0]
    if method not in PLACES:
        base = _hashed(method, _hue(method))
    else:
        place = PLACES.index(method)
        base = Look(PALETTE[place % 11], DASHES[place % 4], MARKERS[place % 7])
    return base if label == method else _hashed(label, _tint(base.color, label))


def _hashed(name: str, color: str) -> Look:
    number = _number(name)
    return Look(color, DASHES[number % len(DASHES)], OWN_MARKERS[number // 4 % len(OWN_MARKERS)])


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def _share(name: str) -> float:
    """A number in [0, 1)."""
    return _number(name) / 16**8


def _hue(name: str) -> str:
    light, full = 0.18 + 0.12 * _share(f"{name} light"), 0.5 + 0.5 * _share(f"{name} full")
    return _hex(colorsys.hls_to_rgb(_share(f"{name} hue"), light, full))


def _tint(color: str, label: str) -> str:
    """Nearer to white, by half the way at most."""
    white = 0.5 * _share(f"{label} tint")
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return _hex(tuple(part + (1 - part) * white for part in parts))


def _hex(rgb: tuple[float, ...]) -> str:
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
