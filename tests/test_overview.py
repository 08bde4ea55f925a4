"""What status, suites and teachers tell: the facts must be the files' own."""

import os
import signal

import pytest
import torch

from kdbench import locks, overview, store, suites
from kdbench.errors import KdbenchError


def rows(results, *known, suite="digits"):
    blank = dict.fromkeys(store.COLUMNS) | {
        "schema": 1,
        "suite": suite,
        "method": "kd",
        "student": "s",
        "seed": 0,
    }
    store.append(results / f"{suite}.csv", [blank | row for row in known])


def line_of(text, start):
    found = [line for line in text.splitlines() if line.startswith(start)]
    assert len(found) == 1, (start, text)
    return found[0]


# --- status ---


def test_status_counts_cells_not_attempts(tmp_path):
    rows(
        tmp_path,
        {"cell_id": "a", "status": "error", "error": "first try"},
        {"cell_id": "a", "status": "ok"},
        {"cell_id": "b", "status": "ok"},
        {"cell_id": "b", "status": "interrupted"},
        {"cell_id": "c", "status": "diverged", "teacher": "t", "seed": 2, "error": "the loss became nan"},
        {"cell_id": "d", "status": "skipped", "error": "no stages"},
        {"cell_id": "e", "status": "oom", "method": "dkd"},
    )
    text = overview.status(tmp_path)
    assert line_of(text, "digits:") == "digits: 1 diverged, 2 ok, 1 oom, 1 skipped"
    assert line_of(text, "  diverged") == "  diverged  kd, t -> s, seed 2: the loss became nan"
    assert line_of(text, "  oom") == "  oom  dkd, s, seed 0"
    assert "first try" not in text
    assert "  skipped" not in text


def test_status_has_a_line_for_every_suite(tmp_path):
    rows(tmp_path, {"cell_id": "a", "status": "ok"})
    rows(tmp_path, {"cell_id": "b", "status": "ok"}, {"cell_id": "c", "status": "ok"}, suite="cifar100")
    assert overview.status(tmp_path).splitlines() == ["cifar100: 2 ok", "digits: 1 ok"]


def test_status_without_results_says_where_it_looked(tmp_path):
    assert overview.status(tmp_path / "none") == f"no results in {tmp_path / 'none'}"


def _hold(folder, ready):
    with locks.held(folder, ["a", "b"]):
        ready.write_text("")
        signal.pause()


def test_status_tells_what_a_live_process_trains(tmp_path, in_child, wait_for):
    process = in_child(_hold, tmp_path / ".work" / "locks", tmp_path / "ready")
    wait_for((tmp_path / "ready").exists)
    line = line_of(overview.status(tmp_path), "running")
    assert line.startswith(f"running: 2 cells in process {process.pid} on {os.uname().nodename}")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert "running" not in overview.status(tmp_path)


def test_status_refuses_a_foreign_file(tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(KdbenchError, match=r"mine\.csv has another header"):
        overview.status(tmp_path)


# --- suites ---


def test_suites_lists_each_with_its_description():
    text = overview.suites_list()
    for name in suites.names():
        assert line_of(text, f"{name} ").endswith(suites.load(name).description)


def test_one_suite_shows_recipe_models_and_pairs(lab):
    """Sizes by the literature's tables: resnet56 has 861,620 parameters at 100 classes, and 125.8 M MACs."""
    file = lab.suite_file(
        ("classes = 4", "classes = 100"),
        ("size = 8", "size = 32"),
        ("[[pairs]]", "[teachers.resnet56]\ntop1 = 72.34\n[[pairs]]"),
        ('teacher = "teacher"', 'teacher = "resnet56"'),
        ('student = "student"', 'student = "resnet20"\nparams = { dkd = { beta = 2.0 } }'),
    )
    text = overview.suite(str(file))
    assert line_of(text, "epochs ").split() == ["epochs", "2"]
    assert line_of(text, "milestones ").split(maxsplit=1)[1] == "(150, 180, 210)"
    assert line_of(text, "weight_decay ").split() == ["weight_decay", "0.0005"]
    name, parameters, macs, unit, expected = line_of(text, "resnet56 ").split()
    assert (name, parameters, unit, expected) == ("resnet56", "861,620", "M", "72.34")
    assert macs == "125.8"
    assert line_of(text, "resnet20 ").split()[::4] == ["resnet20", "–"]
    pair = "resnet56:resnet20"
    assert line_of(text, pair).split() == [pair, "as", "the", "suite", "dkd.beta=2.0"]


def test_a_suite_file_is_shown_with_its_pairs_own_recipe(lab):
    file = lab.suite_file(('student = "student"', 'student = "student"\nrecipe = { lr = 0.01 }'))
    text = overview.suite(str(file))
    assert text.startswith("tiny: 64 images")
    assert "lr=0.01" in line_of(text, "teacher:student")
    assert "data tiny: 4 classes, 8 px, holdout 0.1 of train" in text


# --- teachers ---


def test_teachers_lists_hash_accuracy_and_file(lab):
    given = lab.folder / "given"
    given.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), given / "teacher.pth")
    claim = ("[[pairs]]", "[teachers.teacher]\ntop1 = 60.0\n[[pairs]]")
    options = {
        "suite": str(lab.suite_file(claim)), "data_dir": lab.data, "results": lab.folder / "r", "device": "cpu",
    }  # fmt: skip
    untrained = line_of(overview.teachers(options), "teacher  –")
    assert untrained.split(maxsplit=4) == [
        "teacher",
        "–",
        "–",
        "60.00",
        "not trained yet: kdbench teachers train",
    ]
    name, hashed, top1, expected, file = (
        overview.teachers({**options, "teacher_weights": given}).splitlines()[1].split()
    )
    assert (name, hashed, expected, file) == ("teacher", lab.teacher.id, "60.00", str(given / "teacher.pth"))
    assert 0 <= float(top1) <= 100


def test_a_grid_is_left_aligned_two_spaces_apart():
    assert overview.grid([("a", 10), ("bcd", 2)]) == "a    10\nbcd  2"
