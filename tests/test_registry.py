"""Names to methods: where they come from and what happens to files that are wrong."""

import dataclasses
import inspect
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method

HEAD = "from kdbench.method import Method\nfrom kdbench.registry import register\n"
METHOD = (
    HEAD
    + '''

@register
class {name}(Method):
    """What it does (Author, CONF 2020)."""

    weight: float = 1.0

    def loss(self, batch, student, teacher, modules):
        return {{"a": self.weight * student.logits.mean()}}
'''
)

pytestmark = pytest.mark.usefixtures("scratch_registry")


def plugin(folder, name, text=None):
    file = folder / f"{name.lower()}.py"
    file.write_text(text if text is not None else METHOD.format(name=name))
    return file


# --- loading ---


def test_shipped_methods_are_there_and_none_is_broken():
    assert {"ce", "kd", "dkd", "mlkd", "ctkd", "bickd"} <= set(registry.names())
    assert [entry for entry in registry.entries() if entry.cls is None] == []


def test_a_shipped_methods_file_has_its_name():
    for entry in registry.entries():
        assert entry.origin.stem == entry.name == entry.cls.name


def test_a_folder_and_a_single_file(tmp_path):
    (tmp_path / "more").mkdir()
    plugin(tmp_path, "First")
    plugin(tmp_path, "Second")
    plugin(tmp_path, "_helper", "raise RuntimeError('not a method')")
    (tmp_path / "notes.txt").write_text("1 / 0")
    (tmp_path / "._first.py").write_bytes(b"\0\5\x16\7")  # macOS writes such files on other disks
    single = plugin(tmp_path / "more", "Third")
    registry.load(tmp_path)
    assert {"first", "second"} <= set(registry.names())
    assert "third" not in registry.names()
    registry.load(single)
    assert registry.get("third").weight == 1.0
    assert not [entry for entry in registry.entries() if entry.cls is None]


def test_loading_twice_changes_nothing(tmp_path):
    plugin(tmp_path, "Again")
    registry.load(tmp_path)
    first = registry.get("again")
    registry.load(tmp_path)
    assert registry.get("again") is first


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(
        KdbenchError, match=f"plug-in folder {tmp_path / 'none'} does not exist; --plugins takes"
    ):
        registry.load(tmp_path / "none")


def test_a_file_of_another_kind_is_told(tmp_path):
    (tmp_path / "mine.toml").write_text("x = 1")
    with pytest.raises(KdbenchError, match=r"mine\.toml is no \.py file; --plugins takes one, or a folder"):
        registry.load(tmp_path / "mine.toml")


def test_a_folder_without_a_method_file_is_told(tmp_path):
    """--plugins on the wrong folder must not look as if it worked."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(KdbenchError, match=f"{tmp_path}.*no .*file"):
        registry.load(tmp_path)


def test_the_entry_point_group(tmp_path, monkeypatch):
    plugin(tmp_path, "Outside")
    plugin(tmp_path, "Wrecked", "1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = []

    def entry_points(group):
        asked.append(group)
        return [EntryPoint("outside", "outside", group), EntryPoint("wrecked", "wrecked", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry.load()
    assert asked == ["kdbench.methods"]
    assert registry.create("outside", {"weight": 2}).weight == 2.0
    with pytest.raises(KdbenchError, match="ZeroDivisionError"):
        registry.get("wrecked")


# --- broken files ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("import not_a_module_at_all", "ModuleNotFoundError"),
        ("raise SystemExit(4)", "SystemExit: 4"),
        (HEAD + "@register\nclass Other(Method):\n    x: float\n    x = undefined\n", "NameError"),
    ],
)
def test_a_broken_file_is_listed_and_fatal_only_when_asked_for(tmp_path, text, reason):
    broken = plugin(tmp_path, "Broken", text)
    plugin(tmp_path, "Zfine")
    registry.load(tmp_path)
    entry = next(e for e in registry.entries() if e.name == "broken")
    assert (entry.cls, entry.origin) == (None, broken)
    assert entry.error.startswith(reason)
    assert registry.get("zfine").name == "zfine"
    assert "broken" not in registry.names()
    with pytest.raises(KdbenchError) as caught:
        registry.get("broken")
    assert f"method 'broken' ({broken}) fails at import: {reason}" in str(caught.value)


def test_a_file_that_fails_after_its_method_is_broken_as_a_whole(tmp_path):
    plugin(tmp_path, "Halfway", METHOD.format(name="Halfway") + "\n1 / 0\n")
    registry.load(tmp_path)
    with pytest.raises(KdbenchError, match=r"'halfway'.*fails at import: ZeroDivisionError"):
        registry.get("halfway")


def test_a_mended_file_is_taken(tmp_path):
    plugin(tmp_path, "Mended", "1 / 0")
    registry.load(tmp_path)
    plugin(tmp_path, "Mended")
    registry.load(tmp_path)
    assert registry.get("mended").weight == 1.0


# --- names ---


@pytest.mark.parametrize(("name", "near"), [("bikd", "bickd"), ("dkdd", "dkd"), ("CTKD", None)])
def test_did_you_mean(name, near):
    with pytest.raises(KdbenchError) as caught:
        registry.get(name)
    assert f"unknown method '{name}'; " in str(caught.value)
    assert (f"did you mean '{near}'?" if near else "ctkd") in str(caught.value)


def test_nothing_near_lists_all():
    with pytest.raises(KdbenchError, match=r"unknown method 'zzzzzz'; known: .*bickd.*ce.*dkd"):
        registry.get("zzzzzz")


def test_two_methods_of_one_name_are_refused_with_both_files(tmp_path):
    mine = plugin(tmp_path, "KD")
    with pytest.raises(KdbenchError, match="two methods are called 'kd'") as caught:
        registry.load(tmp_path)
    assert str(mine) in str(caught.value)
    assert str(Path("methods") / "kd.py") in str(caught.value)
    assert registry.get("kd").temperature == 4.0


def test_two_plugins_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        plugin(tmp_path / folder, "Twin")
    registry.load(tmp_path / "a")
    with pytest.raises(KdbenchError, match="two methods are called 'twin'"):
        registry.load(tmp_path / "b")


# --- register, create ---


def test_register_makes_a_frozen_dataclass_in_lower_case():
    @registry.register
    class MixedCase(Method):
        weight: float = 1.0

    method = registry.create("mixedcase", {})
    assert method.name == MixedCase.name == "mixedcase"
    assert method == MixedCase() != MixedCase(weight=2.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.weight = 2.0


def test_register_refuses_what_is_no_method():
    with pytest.raises(KdbenchError, match=r"Thing.*Method"):

        @registry.register
        class Thing:
            pass


def test_register_refuses_a_field_of_another_type():
    """At import, with the remedy: not as an AttributeError when the first value is set."""
    with pytest.raises(KdbenchError, match=r"widths.*bool, int, float, str"):

        @registry.register
        class Listed(Method):
            widths: tuple[int, ...] = (1, 2)

    with pytest.raises(KdbenchError, match=r"limit.*bool, int, float, str"):

        @registry.register
        class Optional(Method):
            limit: int | None = None

    with pytest.raises(
        KdbenchError, match="changing cannot be registered: mutable default <class 'list'> for field"
    ):

        @registry.register
        class Changing(Method):
            widths: list = [1, 2]


def test_register_refuses_what_looks_like_a_parameter_and_is_none():
    class Hot(registry.get("kd")):
        temperature = 16.0

    with pytest.raises(
        KdbenchError, match=r"hot\.temperature stays as in the class above: .* its annotation"
    ):
        registry.register(Hot)

    class Base(Method):
        heat: float = 2.0

    class Derived(Base):
        pass

    with pytest.raises(
        KdbenchError, match=r"derived cannot have the parameter heat of Base: decorate that class"
    ):
        registry.register(Derived)


def test_values_for_a_class_that_is_not_registered_name_the_decorator():
    class Bare(Method):
        weight: float = 1.0

    for values in ({}, {"weight": 2.0}):
        with pytest.raises(
            KdbenchError, match=r"Bare is not registered: write @kdbench\.register above the class"
        ):
            Bare(**values)
    assert registry.register(Bare)(weight=2.0).weight == 2.0


def test_create_names_the_fields_for_an_unknown_key():
    with pytest.raises(
        KdbenchError,
        match=r"unknown parameter 'temp' for kd; it has temperature, ce_weight, kd_weight, momentum_gap, teacher_fix$",
    ):
        registry.create("kd", {"temp": 2.0})
    with pytest.raises(KdbenchError, match="unknown parameter 'x' for ce; it has none"):
        registry.create("ce", {"x": 1})


def test_the_type_of_a_field():
    assert registry.field_type("kd", "temperature") is float
    assert registry.field_type("dkd", "warmup_epochs") is int


# --- the hash of the code ---


def reload(folder, text):
    """The hash of a plug-in with that text."""
    registry._entries.pop("edited", None)
    folder.mkdir()
    registry.load(plugin(folder, "edited", text))
    return registry.code_hash("edited")


CODE = METHOD.format(name="Edited")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("@register", "# a comment\n@register"),
        ('"""What it does (Author, CONF 2020)."""', '"""Something else."""'),
        ("    weight: float = 1.0\n", "    weight: float = 1.0  # published\n\n\n"),
        (HEAD, '"""A module."""\n\n' + HEAD),
        ("teacher, modules):\n", 'teacher, modules):\n        """The loss."""\n'),
        ("self.weight * student.logits.mean()", "(self.weight * (student.logits.mean()))"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path, old, new):
    assert old in CODE
    assert reload(tmp_path / "a", CODE) == reload(tmp_path / "b", CODE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("float = 1.0", "float = 1.5"),
        ("mean()", "sum()"),
        ('"a"', '"b"'),
        ("self.weight * student", "student"),
        ("        return", "        'a' and print\n        return"),
    ],
)
def test_code_counts(tmp_path, old, new):
    assert old in CODE
    assert reload(tmp_path / "a", CODE) != reload(tmp_path / "b", CODE.replace(old, new))


def test_the_hash_is_of_the_code_that_runs_not_of_a_later_edit(tmp_path):
    """A run of hours records what it ran, also when the file is edited meanwhile."""
    before = reload(tmp_path / "a", CODE)
    plugin(tmp_path / "a", "edited", CODE.replace("mean()", "sum()"))
    assert registry.code_hash("edited") == before


def test_shipped_methods_have_different_hashes():
    hashes = {registry.code_hash(name) for name in registry.names()}
    files = {inspect.getfile(registry.get(name)) for name in registry.names()}
    assert len(hashes) == len(files)
