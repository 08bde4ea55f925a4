"""Other locales, terminals, editors and folders than ours: text is UTF-8 everywhere, and nothing fails for a letter."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kdbench
from kdbench import suites
from kdbench.cli import suites as shown
from kdbench.errors import KdbenchError
from kdbench.plan.selection import select_pairs
from tests.support.cli_process import kdbench as command
from tests.support.tiny import RUN, SUITE, make

PACKAGE = Path(kdbench.__file__).parent
# method -> how many positional arguments it has when the last is the encoding
TEXT = {"read_text": 1, "write_text": 2, "open": 4, "fdopen": 4, "TextIOWrapper": 2, "NamedTemporaryFile": 4}
OTHER = {"os", "webbrowser", "tarfile", "Image", "urllib", "safetensors", "zipfile"}  # their open is no text


def _without_encoding(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    keywords = {word.arg: word.value for word in call.keywords}
    if "encoding" in keywords:
        return False
    if keywords.keys() & {"text", "universal_newlines"}:  # of subprocess
        return True
    if name not in TEXT or len(call.args) >= TEXT[name]:
        return False
    if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") in OTHER:
        return False
    given = [arg for arg in (*call.args[:2], keywords.get("mode")) if arg is not None]
    modes = [node.value for arg in given for node in ast.walk(arg) if isinstance(node, ast.Constant)]
    return not any(isinstance(mode, str) and "b" in mode and len(mode) <= 3 for mode in modes)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("p.read_text()", True),
        ("p.read_text('utf-8')", False),
        ("p.write_text(x)", True),
        ("p.write_text(x, 'utf-8')", False),
        ("p.write_text(x, encoding='utf-8')", False),
        ("open(p)", True),
        ("open(p, 'a+')", True),
        ("open(p, 'rb')", False),
        ("p.open('w')", True),
        ("p.open(mode='wb')", False),
        ("subprocess.run(c, text=True)", True),
        ("Image.open(p)", False),
    ],
)
def test_the_search_below_tells_text_from_bytes(code, wrong):
    assert _without_encoding(ast.parse(code, mode="eval").body) == wrong


def test_no_text_is_read_or_written_in_the_locales_encoding():
    """By the calls' names, whatever the object is: a run under another locale would see only the lines it passes."""
    found = [
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Call) and _without_encoding(node)
    ]
    assert found == []


# --- files of the user's ---


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_suite_of_a_windows_editor(tmp_path, end):
    text = SUITE.replace('"tiny"', '"für später"', 1).replace("\n", end)
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert suites.load(str(tmp_path / "mine.toml")).description == "für später"


def test_how_a_suite_file_may_be_called(tmp_path):
    (tmp_path / "MINE.TOML").write_text(SUITE, "utf-8")
    assert suites.load(str(tmp_path / "MINE.TOML")).name == "MINE"
    (tmp_path / "yours.toml").write_text(SUITE, "utf-8")
    with pytest.raises(KdbenchError, match=r"for the file .*yours\.toml type the whole name"):
        suites.load(str(tmp_path / "yours"))
    (tmp_path / "my.trials.toml").write_text(SUITE, "utf-8")
    with pytest.raises(KdbenchError, match=r"'my\.trials\.toml' ends as those of results \(.*; rename it"):
        suites.load(str(tmp_path / "my.trials.toml"))
    latin = os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr.toml")
    Path(latin).write_text(SUITE, "utf-8")
    with pytest.raises(KdbenchError, match="not UTF-8; rename it"):
        suites.load(latin)


@pytest.mark.parametrize("coding", ["utf-16", "latin-1"])
def test_a_suite_in_another_encoding_is_told(tmp_path, coding):
    (tmp_path / "mine.toml").write_bytes(SUITE.replace('"tiny"', '"für"', 1).encode(coding))
    with pytest.raises(KdbenchError, match=r"mine\.toml is not UTF-8 .*save it in that encoding"):
        suites.load(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["ce", "kd"]', '["ce", "kd", "ce"]', "methods lists ce twice"),
        ("seeds = [0]", "seeds = [0, 1, 0]", "seeds lists 0 twice"),
        (
            "[[pairs]]",
            '[[pairs]]\nteacher = "large"\nstudent = "small"\nrecipe = { lr = 0.3 }\n[[pairs]]',
            "pairs lists large:small twice",
        ),
    ],
)
def test_what_a_suite_lists_twice_is_refused(tmp_path, old, new, message):
    (tmp_path / "mine.toml").write_text(SUITE.replace(old, new), "utf-8")
    with pytest.raises(KdbenchError, match=f"{message}; remove one"):
        suites.load(str(tmp_path / "mine.toml"))


def test_what_the_command_line_names_twice_is_one(lab):
    suite = suites.load("cifar100")
    assert select_pairs(suite, ["resnet56:resnet20", "a:b", "resnet56:resnet20", "a:b"]) == [
        select_pairs(suite, [text])[0] for text in ("resnet56:resnet20", "a:b")
    ]


# --- the terminal ---


def _spawn(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    told = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent), **environment}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=told, capture_output=True, timeout=300)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["latin-1", "ascii", "C"],
)
@pytest.mark.slow
def test_a_terminal_that_lacks_letters_gets_a_question_mark(tmp_path, environment):
    """The leaderboard has a Greek delta; it is printed after hours of training. Files stay whole."""
    place = make(tmp_path / "pläce")
    (place / "tiny.toml").write_text(SUITE.replace('"tiny"', '"für"', 1), "utf-8")
    done = _spawn("-m", "kdbench", *RUN, "--epochs", "1", cwd=place, **environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert b" vs kd" in done.stdout
    report = _spawn("-m", "kdbench", "report", "--print", cwd=place, **environment)
    assert (report.returncode, b"Traceback" in report.stderr) == (0, False)
    assert "Δ" in (place / "reports" / "tiny" / "leaderboard.md").read_text("utf-8")


def test_python_in_the_folder_that_holds_the_clone(tmp_path):
    """The clone's folder is called kdbench and is no package: the path must lead past it to the one in it."""
    (tmp_path / "kdbench" / "tests").mkdir(parents=True)
    for args in (("-c", "from kdbench import run"), ("-m", "kdbench", "--version")):
        done = _spawn(*args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_an_editable_install_is_a_line_in_the_path(tmp_path):
    """The one thing that makes the test above hold for `pip install -e .`: setuptools then makes no finder."""
    code = (
        "import sys; sys.argv = ['setup.py', '--quiet', 'editable_wheel', '-d', sys.argv[1]]; "
        "exec(open('setup.py', encoding='utf-8').read())"
    )
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("setup.py", "setup.cfg", "README.md", "kdbench", "methods"):
        (clone / name).symlink_to(PACKAGE.parent / name)
    done = _spawn("-c", code, str(tmp_path), cwd=clone)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    listing = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, check=True)
    assert b"__editable__" in listing.stdout
    assert b"finder" not in listing.stdout


def test_another_data_set_in_the_cache_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "tiny-imagenet-200" / "train" / "n0" / "images").mkdir(parents=True)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    assert "data not found" in " ".join(shown.suite("imagenet").split())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    place = make(tmp_path / "place")
    (place / "results").write_text("a file", "utf-8")
    done = command(*RUN, cwd=place)
    assert done.code == 1
    assert "Traceback" not in done.err
