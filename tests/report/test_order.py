"""Which table of a suite is its main one, what the others' files are called, and how every artefact shows it first."""

import pandas as pd

from kdbench import suites
from kdbench.report import order
from kdbench.report.render import leaderboard
from kdbench.report.tables import tables
from kdbench.report.write import leaderboard_text, write_report
from kdbench.results import store
from tests.support.scenarios import PAIRS, A, boards, grid, hex12, runs

OWN = suites.load("cifar100").recipe.id


def first(path, rows, suite="cifar100"):
    """The headings' split, epochs and precision, main table first."""
    store.append(path / "s.csv", rows)
    found = order.main_first(tables(store.read(path / "s.csv")), suite)
    return [(table.split, table.epochs, table.recipe_id) for table in found]


def test_each_preference_beats_all_that_come_after_it(tmp_path):
    one_seed = runs("kd", 70.0, recipe_id=OWN, epochs_done=240)
    many = [{**row, "recipe_id": hex12("b"), "epochs_done": 300} for row in grid([A, *PAIRS], dkd=1.0)]
    few = runs("kd", 70.0, 71.0, recipe_id=OWN, epochs_done=240, pair=PAIRS[0], precision="bf16")
    holdout = [{**row, "split": "holdout", "recipe_id": OWN} for row in grid([A, *PAIRS], dkd=1.0, dist=1.0)]
    assert first(tmp_path, [*holdout, *one_seed, *many, *few]) == [
        ("test", "240", OWN),  # two seeds at the suite's own recipe
        ("test", "300", hex12("b")),  # more runs, but of another recipe
        ("test", "240", OWN),  # one seed
        ("holdout", "240", OWN),
    ]


def test_variants_do_not_make_a_table_the_main_one(tmp_path):
    swept = [
        row
        for i in range(9)
        for row in runs(
            "kd", 70.0, 71.0, variant=f"temperature={i}", params=f'{{"temperature":{i}}}', precision="bf16"
        )
    ]
    rows = [*swept, *runs("kd", 70.0, 71.0, precision="fp32")]
    store.append(tmp_path / "s.csv", rows)
    found = order.main_first(tables(store.read(tmp_path / "s.csv")), "mine")
    assert [table.precision for table in found] == ["fp32", "bf16"]


def test_without_a_suite_file_the_recipe_with_most_runs_counts(tmp_path):
    long = runs("kd", 70.0, 71.0, 72.0, recipe_id=hex12("b"), epochs_done=300)
    short = [*grid([A], dkd=1.0), *runs("kd", 70.0, 71.0, split="holdout")]
    assert [recipe for _, _, recipe in first(tmp_path, [*long, *short], "mine")][:2] == [
        hex12("r1"),
        hex12("b"),
    ]


def test_slugs_name_each_table_of_the_appendix(tmp_path):
    rows = [*grid([A], dkd=1.0), *runs("kd", 60.0, 61.0, split="holdout", precision="fp32", epochs_done=30)]
    rows += runs("kd", 50.0, 51.0, dataset="my images", epochs_done=3)
    found = [board.table for board in boards(tmp_path, rows)]
    r1 = hex12("r1")[:8]
    assert order.slugs(found) == ["", f"my_images-test-3ep-{r1}", f"holdout-30ep-fp32-{r1}"]
    assert order.size(found[0]) == "2 methods on 1 pair, 6 runs"


SHORT = runs("kd", 50.0, 51.0, recipe_id=hex12("b"), epochs_done=12)
TWO = [*grid([A], dkd=1.0), *SHORT]


def test_the_terminal_shows_the_main_table_and_names_the_others(tmp_path):
    found = boards(tmp_path, TWO)
    text = leaderboard.text("s", found, [])
    assert sum(set(line) == {"-"} for line in text.splitlines()) == 1  # below the heading of one table
    assert order.APPENDIX in text
    flat = " ".join(text.split())
    assert (
        f"in leaderboard.md cifar100, test split, 12 epochs (recipe {hex12('b')}): 1 method on 1 pair, 2 runs"
        in flat
    )
    assert max(map(len, text.splitlines())) <= 80
    assert order.APPENDIX not in leaderboard.text("s", found[:1], [])


def test_the_end_of_a_run_shows_all_its_tables_in_full(tmp_path):
    store.append(tmp_path / "s.csv", TWO)
    text = leaderboard_text("s", store.read(tmp_path / "s.csv"))
    assert text.count("50.50") == 1
    assert order.APPENDIX not in text


def test_every_artefact_has_the_main_table_first_and_an_appendix(tmp_path):
    store.append(tmp_path / "s.csv", TWO)
    write_report("s", tmp_path, tmp_path / "out")
    folder = tmp_path / "out" / "s"
    for name in ("leaderboard.md", "index.html"):
        before, _, after = (
            (folder / name)
            .read_text()
            .partition(f"{order.APPENDIX}\n" if name[0] == "l" else f"<summary>{order.APPENDIX}</summary>")
        )
        assert "240 epochs" in before
        assert "12 epochs" not in before.partition("<script")[0], name
        assert "12 epochs" in after, name
    assert pd.read_csv(folder / "leaderboard.csv")["table"].tolist() == ["main", "main", "appendix"]
    assert "12 epochs" not in (folder / "leaderboard.tex").read_text()
    assert "12 epochs" in (folder / "leaderboard-appendix.tex").read_text()


def test_an_appendix_that_is_no_more_goes(tmp_path):
    store.append(tmp_path / "a" / "s.csv", TWO)
    store.append(tmp_path / "b" / "s.csv", grid([A], dkd=1.0))
    for results in ("a", "b"):
        write_report("s", tmp_path / results, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "s").iterdir()}
    assert not [name for name in names if "12ep" in name]
    assert "12 epochs" not in (tmp_path / "out" / "s" / "leaderboard-appendix.tex").read_text()
