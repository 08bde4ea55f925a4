"""Commands as users mistype them: one sentence that says what to type, exit code 1."""

from __future__ import annotations

import pytest

from kdbench.cli.main import main
from kdbench.cli.verbs import walk
from tests.support.cli_process import kdbench, refused

TYPED = {
    "rnu": ["unknown verb 'rnu'; did you mean 'run'?"],
    "mine.toml": ["unknown verb 'mine.toml'; known: ablate, bench"],
    "bench stp": ["unknown verb 'stp' of `kdbench bench`; did you mean 'step'?"],
    "teachers lst": ["unknown verb 'lst' of `kdbench teachers`; did you mean 'list'?"],
    "--suite digits run": [
        "`kdbench` has no option --suite",
        "type it after a verb that has it: `kdbench ablate`",
    ],
    "bench --suite digits": [
        "after a verb that has it: `kdbench bench precision`, `kdbench bench scale`, `kdbench bench step`"
    ],
    "run --images 5": ["`kdbench run` has no option --images; it is an option of `kdbench bench epoch`"],
    "run --sede 0": ["`kdbench run` has no option --sede; did you mean --seeds?"],
    "run --frobnicate": ["has no option --frobnicate; `kdbench run --help` lists"],
    "run digits": ["`kdbench run` takes no argument 'digits'; a suite is chosen by --suite digits"],
    "run --methods kd dkd": ["takes no argument 'dkd'; join values by commas: --methods kd,dkd"],
    "methods show kd dkd": ["`kdbench methods show` takes no argument 'dkd'; `kdbench methods show --help`"],
    "run --suite": ["'--suite' requires an argument"],
    "run --epochs ten": ["'--epochs'", "'ten' is not a valid integer"],
    "run --epochs -3": ["epochs must be greater than 0, got -3"],
    "run --per-class -1": ["'--per-class'", "x>=1"],
    "run --max-hours -1": ["'--max-hours'", "x>0"],
    "run --seeds -1": ["seeds are written like 0-2 or 0,3, got '-1'"],
    "run --seeds 0-2,5-3": ["seeds are written like 0-2 or 0,3, got '0-2,5-3'"],
    "run --seeds 1_0": ["seeds are written like 0-2 or 0,3, got '1_0'"],
    "run --split train": ["'train' is not one of 'test', 'holdout'"],
    "run --methods mine.py": ["mine.py is a file: load it by --plugins mine.py"],
    "ablate mine.py": ["mine.py is a file: load it by --plugins mine.py"],
    "methods mine.py": ["mine.py is a file: load it by --plugins mine.py"],
    "methods dkdd": ["unknown method 'dkdd'; did you mean 'dkd'?"],
    "check nowhere.py": ["there is no file nowhere.py"],
    "export abc": ["`kdbench export` takes CELL FILE, or METHOD PAIR SEED FILE", "status --cells"],
    "teachers cache": ["`kdbench teachers cache` needs --teacher-cache"],
    "new": ["`kdbench new` needs NAME"],
    "teachers import nowhere.pth": ["nowhere.pth", "does not exist"],
    "run --teacher-weights teacher.pth": ["'--teacher-weights'", "is a file"],
    "bench step --out folder": ["'--out'", "is a directory"],
    "help": ["type `kdbench --help`"],
    "version": ["type `kdbench --version`"],
    "run --pairs digits_teacher:digits_studnt": ["of suite digits; did you mean 'digits_student'?"],
    "run --track tensorbord": ["unknown tracker 'tensorbord'; did you mean 'tensorboard'?"],
    "run --device mps": ["Apple's GPUs (mps) are not supported", "--device cpu"],
    "report --results a,b": ["there is no a,b; --results takes one folder", "may be repeated"],
    "report --suite nowhere/mine.toml --results folder": ["there are no rows of suite 'mine'"],
    "report --results folder --since yesterday": ["such as 2026-03-01", "'yesterday'"],
    "forget --status lost": ["unknown status 'lost'; known: ok"],
    "forget --undo folder": [
        "folder is no folder that `kdbench forget` has written; nothing was forgotten here"
    ],
    "teachers use digits_teacher": ["`kdbench teachers use` needs HASH"],
    "results upgrade nowhere.csv": ["nowhere.csv", "does not exist"],
}
MOVED = [
    ("bench --scale --device cpu --out x", "--scale", "kdbench bench scale"),
    ("bench --suite digits --precision-study", "--precision-study", "kdbench bench precision"),
    ("check --cost", "--cost", "kdbench bench methods"),
    ("check fsp --real --images 100", "--real", "kdbench bench epoch"),
    ("methods --pairs --suite digits", "--pairs", "kdbench methods pairs"),
    ("methods dkd --bibtex", "--bibtex", "kdbench methods bibtex"),
]


@pytest.mark.parametrize("typed", TYPED)
def test_a_mistyped_command_is_one_sentence_with_the_remedy(tmp_path, typed):
    (tmp_path / "teacher.pth").touch()
    (tmp_path / "folder").mkdir()
    refused(kdbench(*typed.split(), cwd=tmp_path), *TYPED[typed])


@pytest.mark.parametrize(("typed", "flag", "verb"), MOVED)
def test_a_flag_that_has_become_a_verb_names_it(tmp_path, typed, flag, verb):
    refused(kdbench(*typed.split(), cwd=tmp_path), f"{flag} has become a verb: type `{verb}`")
    assert verb in dict(walk(main))
