"""Which rows share a table, a column and a line: splits, recipes, teachers' weights, settings, repeated attempts."""

from kdbench.report.notes import notes
from kdbench.report.provenance import provenance
from tests.support.scenarios import COLUMN, A, boards, cells, grid, hex12, run, runs, said


def test_two_weights_under_one_teacher_name_never_share_a_column(tmp_path):
    rows = [*runs("kd", 70.0, 71.0), *runs("kd", 50.0, 51.0, teacher_id="abcd9999")]
    (b,) = boards(tmp_path, rows)
    assert b.table.pairs == ["resnet56#abcd1 -> resnet20", "resnet56#abcd9 -> resnet20"]
    assert cells(b)["kd", b.table.pairs[0]].startswith("70.50")


def test_hash_is_four_digits_where_they_tell_apart(tmp_path):
    (b,) = boards(tmp_path, [run("kd"), run("kd", teacher_id="ffff0000")])
    assert b.table.pairs == ["resnet56#abcd -> resnet20", "resnet56#ffff -> resnet20"]


def test_a_method_without_teacher_joins_every_pair_of_a_student(tmp_path):
    other = ("resnet110", "resnet20")
    rows = [*grid([A, other]), *runs("ce", 68.0, 68.5, 68.1, pair=(None, "resnet20"))]
    (b,) = boards(tmp_path, rows)
    assert b.table.pairs == ["resnet110 -> resnet20", COLUMN]
    assert cells(b)["ce", "resnet110 -> resnet20"] == cells(b)["ce", COLUMN] == "68.20 ± 0.26 (3)"
    assert "joins every pair" in said(b)
    assert "9 rows used" in provenance("s", [b.table])[0]  # 6 kd, 3 ce: none counted twice


def test_only_methods_without_a_teacher(tmp_path):
    (b,) = boards(tmp_path, runs("ce", 68.0, 68.5, pair=(None, "resnet20")))
    assert b.table.pairs == ["resnet20"]


def test_splits_and_recipes_stand_in_tables_of_their_own(tmp_path):
    one, two = hex12("r1"), hex12("r2")
    short = [{**row, "recipe_id": two, "epochs_done": 12} for row in runs("kd", 50.0, 51.0)]
    rows = [*short, *runs("kd", 80.0, 81.0, split="holdout"), *runs("kd", 70.0, 71.0)]
    found = boards(tmp_path, rows)
    assert [b.table.heading for b in found] == [
        f"cifar100, test split, 240 epochs (recipe {one})",
        f"cifar100, test split, 12 epochs (recipe {two})",
        f"cifar100, holdout split, 240 epochs (recipe {one})",
    ]
    assert [cells(b)["kd", COLUMN][:5] for b in found] == ["70.50", "50.50", "80.50"]
    assert "top-1 on the holdout split, last epoch" in said(found[2])


def test_overrides_are_rows_of_their_own_and_never_the_baseline(tmp_path):
    rows = [
        *runs("kd", 70.0, 71.0),
        *runs("kd", 90.0, 91.0, variant="temperature=1", params='{"temperature":1}'),
    ]
    (b,) = boards(tmp_path, rows)
    assert b.labels == ["kd temperature=1", "kd"]
    assert b.summary["delta"]["kd temperature=1"] == 20.0


def test_newer_versions_and_parameters_replace_older_ones(tmp_path):
    rows = [
        *runs("dkd", 10.0, 10.0, method_version=1),
        *runs("dkd", 20.0, method_version=2, params='{"beta":8.0}'),
        *runs("dkd", 70.0, 71.0, method_version=2, params='{"beta":2.0}'),
    ]
    (b,) = boards(tmp_path, rows)
    assert cells(b)["dkd", COLUMN].startswith("70.50")
    assert "Set aside: 3" in said(b)


def test_of_one_seed_the_run_without_a_teacher_cache_counts(tmp_path):
    cached = runs("kd", 60.0, 61.0, teacher_cache="float16")
    (b,) = boards(tmp_path / "one", [run("kd", 70.0), *cached])
    assert cells(b)["kd", COLUMN].startswith("65.50")  # seed 0 without, seed 1 with the cache
    assert "1 of 2 runs took the teacher's logits from a cache (float16)" in said(b)
    assert "Set aside: 1" in said(b)
    (b,) = boards(tmp_path / "two", runs("kd", 70.0, 71.0))
    assert "cache (" not in said(b)


def test_a_repeated_attempt_counts_once(tmp_path):
    failed = run("kd", None, status="interrupted")
    (b,) = boards(tmp_path, [failed, {**failed, "status": "ok", "top1": 70.0}])
    assert cells(b)["kd", COLUMN] == "70.00 (1)"
    assert "Without a result" not in said(b)


def test_a_weak_teacher_is_marked(tmp_path):
    (b,) = boards(tmp_path, runs("kd", 70.0, 71.0, teacher_top1=71.5, teacher_expected=72.34))
    assert ("kd", f"{COLUMN}†") in cells(b)
    assert "† teacher resnet56 reaches 71.50, the suite expects 72.34" in said(b)


def test_a_teacher_that_misses_by_rounding_is_not_marked(tmp_path):
    (b,) = boards(tmp_path, runs("kd", 70.0, 71.0, teacher_top1=72.31, teacher_expected=72.34))
    assert ("kd", COLUMN) in cells(b)
    assert "†" not in said(b)


def test_a_reconstruction_is_named_in_its_own_tables_only(tmp_path):
    (without,) = boards(tmp_path / "a", [run("kd"), run("my_plugin")])
    (with_it,) = boards(tmp_path / "b", [run("bickd")])
    assert not any("reconstruction" in note for note in notes(without))
    assert [note for note in notes(with_it) if note.startswith("bickd is a reconstruction, written without")]
