"""What a plug-in's code is, and how its modules are found: whatever the import's form, from its own folder."""

import csv
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.utils import code_hash, plugin_import
from tests.support.cli_process import kdbench
from tests.support.tiny import RUN, make

METHOD = '''{imports}
from kdbench.method import Method
from kdbench.registry import register


@register
class Mine(Method):
    """Made up (Author, CONF 2020)."""

    weight: float = 1.0
    value = {value}

    def loss(self, batch, student, teacher, modules):
        return {{"a": self.value * self.weight * student.logits.mean()}}
'''


@pytest.fixture(autouse=True)
def _forget_all(scratch_registry):
    yield
    for name in [name for name in sys.modules if name.startswith(plugin_import.PREFIX)]:
        del sys.modules[name]


def write(folder: Path, **texts: str) -> Path:
    """Files by name, ``sub__x`` for sub/x.py; returns the folder."""
    for name, text in texts.items():
        file = folder / f"{name.replace('__', '/', 1)}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return folder


def method(imports: str, value: str) -> str:
    return METHOD.format(imports=imports, value=value)


FORMS = {
    "from .terms import VALUE": "VALUE",
    "from . import terms": "terms.VALUE",
    "import terms": "terms.VALUE",
    "import terms as t": "t.VALUE",
    "from terms import *": "VALUE",
    "from sub.deep import VALUE": "VALUE",
    "import sub.deep": "sub.deep.VALUE",
    "import sub.deep as t": "t.VALUE",
    "from sub import deep": "deep.VALUE",
    "from .sub import deep": "deep.VALUE",
    "from sub import FROM_ROOT": "FROM_ROOT",
    "import importlib": "importlib.import_module('.terms', __package__).VALUE",
}


@pytest.mark.parametrize("imports", FORMS)
def test_every_form_of_import_is_found_and_counts(tmp_path, imports):
    """VALUE always comes from terms.py in the end: the class reads it, and an edit of it is another code."""
    write(tmp_path, terms="VALUE = 1", sub____init__="from ..terms import VALUE as FROM_ROOT")
    write(tmp_path, sub__deep="from terms import VALUE", mine=method(imports, FORMS[imports]))
    registry.load(tmp_path)
    before, value = registry.code_hash("mine"), registry.get("mine").value
    write(tmp_path, terms="VALUE = 2")
    registry.load(tmp_path)
    assert (value, registry.get("mine").value) == (1, 2)
    assert registry.code_hash("mine") != before


def test_an_import_within_a_function_counts_and_is_its_own(tmp_path):
    """Two folders in one session: each function finds the file beside it, whoever was imported first."""
    for name, value in (("Mine", 1), ("Other", 2)):
        text = method("", "property(lambda self: __import__('terms').VALUE)").replace("Mine", name)
        text += "\n\ndef late():\n    import terms\n    return terms.VALUE\n"
        write(tmp_path / name, terms=f"VALUE = {value}", **{name.lower(): text})
        registry.load(tmp_path / name)
    for name, value in (("mine", 1), ("other", 2)):
        assert registry.create(name, {}).value == value
        assert sys.modules[registry.get(name).__module__].late() == value
    before = registry.code_hash("other")
    write(tmp_path / "Other", terms="VALUE = 3")
    registry.load(tmp_path / "Other")
    assert registry.code_hash("other") != before
    assert (registry.create("mine", {}).value, registry.create("other", {}).value) == (1, 3)


def test_a_file_beside_goes_before_an_installed_package(tmp_path, monkeypatch):
    """But the rest of the program goes on with the installed one."""
    write(tmp_path / "installed", utils_x="VALUE = 'installed'")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    write(tmp_path / "p", utils_x="VALUE = 'beside'", mine=method("import utils_x", "utils_x.VALUE"))
    registry.load(tmp_path / "p")
    assert registry.get("mine").value == "beside"
    import utils_x

    assert utils_x.VALUE == "installed"
    del sys.modules["utils_x"]


def test_pythons_own_modules_go_before_a_file_of_that_name(tmp_path):
    write(
        tmp_path, random="raise ValueError('mine')", mine=method("import random", "random.Random(0).random()")
    )
    registry.load(tmp_path)
    assert registry.get("mine").value == pytest.approx(0.8444218515250481)


def test_a_circle_of_imports(tmp_path):
    write(tmp_path, _a="import _b\nA = 1", _b="from . import _a\nB = 2", mine=method("import _a", "_a._b.B"))
    registry.load(tmp_path)
    assert registry.get("mine").value == 2
    names = {file.name for file in code_hash.reached(tmp_path / "mine.py", tmp_path)}
    assert names == {"mine.py", "_a.py", "_b.py"}


def test_an_edit_within_the_second_is_read(tmp_path):
    """Python's own cache of compiled files is held fresh by the second and the size."""
    for value in (1, 2, 3):
        write(tmp_path, _t=f"VALUE = {value}", mine=method("import _t", "_t.VALUE"))
        registry.load(tmp_path)
        assert registry.get("mine").value == value
    assert not (tmp_path / "__pycache__").exists()


def test_an_edit_reloads_the_folder_and_a_comment_does_not(tmp_path):
    write(tmp_path, mine=method("", "1"), other=method("", "5").replace("Mine", "Other"))
    registry.load(tmp_path)
    first = registry.get("mine")
    write(tmp_path, mine="# a comment\n" + method("", "1"))
    registry.load(tmp_path / "mine.py")
    assert registry.get("mine") is first
    write(tmp_path, mine=method("", "2"))
    registry.load(tmp_path / "mine.py")
    assert registry.get("mine").value == 2
    assert registry.get("other").value == 5


def test_a_helper_that_is_broken_and_then_repaired(tmp_path):
    write(tmp_path, _t="def f(:", mine=method("import _t", "_t.VALUE"))
    registry.load(tmp_path)
    with pytest.raises(KdbenchError, match=r"'mine'.*fails at import: SyntaxError.*_t\.py"):
        registry.get("mine")
    write(tmp_path, _t="VALUE = 4")
    registry.load(tmp_path)
    assert registry.get("mine").value == 4


@pytest.mark.parametrize(
    ("head", "coding"), [(b"\xef\xbb\xbf", "utf-8"), (b"# -*- coding: latin-1 -*-\n", "latin-1")]
)
def test_a_bom_or_a_coding_line_is_pythons_to_read(tmp_path, head, coding):
    text = method("", "'für'")
    (tmp_path / "mine.py").write_bytes(head + text.encode(coding))
    registry.load(tmp_path)
    assert registry.get("mine").value == "für"
    plain = write(tmp_path / "plain", mine=text) / "mine.py"
    assert registry.code_hash("mine") == code_hash.code_hash(plain)


def test_what_macos_puts_into_a_package_is_no_module(tmp_path):
    write(tmp_path, sub____init__="VALUE = 1", mine=method("from sub import *", "VALUE"))
    (tmp_path / "sub" / "._deep.py").write_bytes(b"\0\5\x16\7")
    registry.load(tmp_path)
    assert registry.get("mine").value == 1


def test_an_installed_method_names_its_package(tmp_path, monkeypatch):
    """An entry point's module may import its neighbours by their full name."""
    package = write(tmp_path / "site" / "pkg_x", _t="VALUE = 1", mine="from pkg_x._t import VALUE")
    before = code_hash.code_hash(package / "mine.py")
    write(package, _t="VALUE = 2")
    assert code_hash.code_hash(package / "mine.py") != before


def test_a_folder_of_the_repository_may_be_the_plug_in_folder(tmp_path):
    """--plugins . beside the clone, or in methods/: kdbench stays the one that runs, shipped files are not twice."""
    write(tmp_path, mine=method("", "1"), kdbench____init__="raise ValueError('not this one')")
    registry.load(tmp_path)
    assert registry.get("mine").value == 1
    shipped = registry.get("kd")
    registry.load(registry.entry("kd").origin.parent)
    assert registry.get("kd") is shipped


def test_run_warns_of_an_edited_helper_and_force_says_so(tmp_path):
    place = make(tmp_path / "place")
    text = method("from _terms import scale", "1").replace("self.value *", "scale() *")
    write(place / "p", mine=text, _terms="def scale():\n    return 1.0")
    command = (*RUN, "--methods", "mine", "--plugins", "p")
    assert kdbench(*command, cwd=place).code == 0
    write(place / "p", _terms="def scale():\n    return 50.0")
    assert "WARNING: the code of mine changed" in kdbench(*command, cwd=place).err
    assert kdbench(*command, "--force", cwd=place).code == 0
    with open(place / "results" / "tiny.csv", encoding="utf-8", newline="") as file:
        hashes = [row["code_hash"] for row in csv.DictReader(file)]
    assert len(set(hashes)) == len(hashes) == 2


# --- random import graphs ---

PLACES = ("", "pa", "pa/pb", "ns")  # ns has no __init__.py


@st.composite
def graphs(draw):
    """Modules (number -> folder) and imports (from, to, form, whether within a function); 0 is the plug-in."""
    count = draw(st.integers(2, 6))
    places = ["", *(draw(st.sampled_from(PLACES)) for _ in range(count - 1))]
    number = st.integers(0, count - 1)
    edge = st.tuples(number, st.integers(1, count - 1), st.sampled_from(sorted(STYLES)), st.booleans())
    return places, draw(st.lists(edge, max_size=10))


def _dots(place: str) -> str:
    return "." * (1 + len(Path(place).parts))


def _join(place: str, name: str = "") -> str:
    return ".".join([*Path(place).parts, *filter(None, [name])])


STYLES = {
    "import": lambda here, there, m: f"import {_join(there, m)}",
    "import as": lambda here, there, m: f"import {_join(there, m)} as x",
    "from import": lambda here, there, m: f"from {_join(there, m)} import VALUE as x",
    "member": lambda here, there, m: f"from {_join(there)} import {m}" if there else f"import {m}",
    "relative": lambda here, there, m: f"from {_dots(here)}{_join(there, m)} import VALUE as x",
    "relative member": lambda here, there, m: f"from {_dots(here)}{_join(there)} import {m}",
    "dynamic": lambda here, there, m: (
        f"import importlib\nimportlib.import_module('{_dots(here)}{_join(there, m)}', __package__)"
    ),
}


def _lay_out(root: Path, places: list[str], edges: list) -> list[Path]:
    for place in ("pa", "pa/pb"):
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / "__init__.py").write_text("", "utf-8")
    files = [root / place / f"m{number}.py" for number, place in enumerate(places)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = ["VALUE = 1"]
        for start, end, style, late in edges:
            if start == number:
                text = STYLES[style](places[start], places[end], f"m{end}")
                lines += ["def late():", *(f"    {line}" for line in text.split("\n"))] if late else [text]
        file.write_text("\n".join(lines), "utf-8")
    return files


def _closure(edges: list) -> set[int]:
    found, waiting = set(), [0]
    while waiting:
        if (number := waiting.pop()) not in found:
            found.add(number)
            waiting += [end for start, end, *_ in edges if start == number]
    return found


def _try_graph(root: Path, places: list[str], edges: list) -> None:
    files = _lay_out(root, places, edges)
    before, wanted = code_hash.code_hash(files[0]), _closure(edges)
    for number, file in enumerate(files):
        text = file.read_text("utf-8")
        file.write_text(text.replace("VALUE = 1", "VALUE = 2"), "utf-8")
        assert (code_hash.code_hash(files[0]) != before) == (number in wanted), file
        file.write_text(text, "utf-8")
    plugin_import.load(files[0])  # Python's own word on what is imported at once
    package = [
        m for n, m in sys.modules.items() if n.startswith(plugin_import.PREFIX) and getattr(m, "__file__", "")
    ]
    loaded = {Path(m.__file__) for m in package if Path(m.__file__).is_relative_to(root)}
    now = _closure([edge for edge in edges if not edge[3]])
    assert {file for file in loaded if file.name != "__init__.py"} == {files[number] for number in now}
    assert loaded <= set(code_hash.reached(files[0], root))


@settings(max_examples=25, derandomize=True, deadline=None, database=None)
@given(graph=graphs())
def test_any_graph_of_imports(tmp_path_factory, graph):
    """Editing a file that is reached changes the hash, editing another does not; Python loads what is reached."""
    _try_graph(tmp_path_factory.mktemp("graph"), *graph)


@pytest.mark.slow
@settings(max_examples=1500, derandomize=True, deadline=None, database=None)
@given(graph=graphs())
def test_any_graph_of_imports_at_length(tmp_path_factory, graph):
    _try_graph(tmp_path_factory.mktemp("graph"), *graph)
