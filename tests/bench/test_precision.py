"""The study of precision: paired differences between runs in bf16 and in fp32."""

import dataclasses
import itertools

import pandas as pd
import pytest

from kdbench import suites
from kdbench.bench import command, precision
from kdbench.errors import KdbenchError
from kdbench.results import store
from tests.support.scenarios import hex12


def attempts(changes, seeds=range(3)):
    """Rows of digits: fp32 at 90 + seed; bf16 that much plus ``changes[method][seed]``."""
    suite, rows = suites.load("digits"), []
    for (method, change), kind, seed in itertools.product(changes.items(), precision.PRECISIONS, seeds):
        recipe = dataclasses.replace(suite.recipe, precision=kind)
        rows.append(
            dict.fromkeys(store.COLUMNS)
            | {"suite": "digits", "dataset": "digits", "split": "test", "status": "ok", "method": method}
            | {
                "cell_id": f"{method}{kind}{seed}",
                "student": "s",
                "teacher": "t",
                "teacher_id": "x",
                "seed": seed,
            }
            | {"recipe_id": recipe.id, "epochs_done": recipe.epochs, "method_version": 1}
            | {"precision": kind}
            | {
                "params": "{}",
                "train_s": 1.0,
                "top1": 90.0 + seed + (change[seed] if kind == "bf16" else 0.0),
            }
        )
    return suite, pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    """kd: +1, +2, +3: mean 2, t-interval 2 ± 4.303 / sqrt(3); dkd: always +2, which exceeds any noise."""
    suite, rows = attempts({"kd": [1.0, 2.0, 3.0], "dkd": [2.0, 2.0, 2.5]})
    pairs = precision.paired(precision.sides(suite, rows))
    found = precision.summary(pairs).set_index("label")
    assert found.loc["kd", "fp32"] == pytest.approx(91)
    assert found.loc["kd", "fp32_std"] == pytest.approx(1)
    assert found.loc["kd", "delta"] == pytest.approx(2)
    assert found.loc["kd", "low"] == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3)
    assert list(found["exceeds"][["kd", "dkd"]]) == [False, True]
    text = precision.verdict(found.reset_index())
    assert text.startswith("The difference exceeds the noise for 1 of 2: dkd on t -> s (+2.17).")


def test_the_study_says_when_nothing_exceeds_the_noise(tmp_path):
    _, rows = attempts({"kd": [1.0, -1.0, 0.5]})
    (tmp_path / "results").mkdir()
    rows = rows.assign(schema=store.SCHEMA, cell_id=rows["cell_id"].map(hex12), teacher_id=hex12("x"))
    rows.to_csv(tmp_path / "results" / "digits.csv", index=False)
    text = command.study_precision("digits", tmp_path / "results", tmp_path / "out")
    assert "No difference exceeds the noise: all 1 intervals contain 0" in text
    assert "kdbench run --suite digits --methods kd --seeds 0,1,2 --precision bf16" in text
    assert (tmp_path / "out" / "precision-digits.md").read_text() == text
    assert list(pd.read_csv(tmp_path / "out" / "precision-digits.csv")["n"]) == [3]
    assert (tmp_path / "out" / "precision-digits.png").stat().st_size > 0


def test_one_precision_alone_is_no_study():
    suite, rows = attempts({"kd": [1.0, 2.0, 3.0]})
    one = rows[rows["cell_id"].str.contains("bf16")]
    with pytest.raises(KdbenchError, match="in fp32 and in bf16; type the same `kdbench run --suite digits`"):
        precision.sides(suite, one)


def test_the_study_takes_the_longest_recipe_in_both_precisions():
    suite, rows = attempts({"kd": [1.0, 2.0, 3.0], "dkd": [2.0, 2.0, 2.5]})
    longer, shorter = ({"epochs_done": n, "cell_id": rows["cell_id"] + f"/{n}"} for n in (99, 2))
    for change, kept in ((longer, "bf16"), (shorter, "fp32|bf16")):
        recipe = {
            kind: dataclasses.replace(suite.recipe, precision=kind, epochs=change["epochs_done"]).id
            for kind in precision.PRECISIONS
        }
        ids = [recipe["bf16" if "bf16" in cell else "fp32"] for cell in rows["cell_id"]]
        more = rows.assign(**change, recipe_id=ids)
        rows = pd.concat([rows, more[more["cell_id"].str.contains(kept)]], ignore_index=True)
    rows = rows[~rows["cell_id"].isin(["kdfp320", "kdfp320/2"])]  # seed 0 of kd is not there in fp32
    both = precision.sides(suite, rows)
    assert {table.epochs for table in both.values()} == {str(suite.recipe.epochs)}
    assert precision.summary(precision.paired(both)).set_index("label")["n"].to_dict() == {"dkd": 3, "kd": 2}
    few = rows[rows["cell_id"].str.endswith("/2")]
    command = precision.commands("digits", suite, precision.sides(suite, few))[0]
    assert command == "kdbench run --suite digits --methods dkd,kd --seeds 0,1,2 --epochs 2 --precision fp32"
