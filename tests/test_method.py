"""The plug-in vocabulary by itself: values by type, parameters, needs and their guard."""

import dataclasses
from dataclasses import field
from typing import ClassVar, Literal

import pytest
import torch
from torch import nn

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import (
    Batch,
    Method,
    Needs,
    Outputs,
    UndeclaredNeed,
    Views,
    field_types,
    overrides,
)
from kdbench.utils.field_values import coerce, parse

Shape = Literal["paper", "code"]


@pytest.fixture
def sample(scratch_registry):
    @registry.register
    class Sample(Method):
        positive: ClassVar = ("temperature",)

        temperature: float = 4.0
        rounds: int = 3
        soft: bool = True
        form: Shape = "paper"
        later: float = field(default=0.0, metadata={"neutral": 0.0})

    return Sample


# --- values by type ---


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (float, 2.5, 2.5),
        (float, 2, 2.0),
        (int, 2, 2),
        (bool, False, False),
        (str, "a", "a"),
        (Shape, "code", "code"),
    ],
)
def test_coerce_keeps_what_fits(kind, value, result):
    found = coerce(kind, value, "x")
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float, "2", r"m\.x takes a finite float, got '2'"),
        (float, True, r"m\.x takes a finite float, got True"),
        (float, float("nan"), "finite float, got nan"),
        (float, float("inf"), "finite float, got inf"),
        (int, 2.0, r"m\.x takes a int, got 2\.0"),
        (int, True, "takes a int, got True"),
        (bool, 1, "takes a bool, got 1"),
        (str, 1, "takes a str, got 1"),
        (Shape, "papper", r"unknown value 'papper' for m\.x; did you mean 'paper'"),
        (float, None, "got None"),
    ],
)
def test_coerce_refuses_the_rest(kind, value, message):
    with pytest.raises(KdbenchError, match=message):
        coerce(kind, value, "m.x")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (float, "2", 2.0),
        (float, "1e-3", 0.001),
        (int, "-3", -3),
        (bool, "True", True),
        (bool, "0", False),
        (str, "2", "2"),
        (Shape, "code", "code"),
    ],
)
def test_parse_reads_by_type(kind, text, value):
    found = parse(kind, text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"), [(float, "a"), (float, ""), (int, "2.0"), (int, "x"), (bool, "yes"), (bool, "2")]
)
def test_parse_names_field_and_type(kind, text):
    with pytest.raises(KdbenchError, match=rf"^m\.x takes a {kind.__name__}, got '{text}'"):
        parse(kind, text, "m.x")


@pytest.mark.parametrize("text", ["inf", "nan", "1e999"])
def test_parse_refuses_numbers_that_are_not_finite(text):
    with pytest.raises(KdbenchError, match="finite float"):
        parse(float, text, "m.x")


# --- methods ---


def test_values_are_brought_to_their_type(sample):
    assert type(sample(temperature=2).temperature) is float
    with pytest.raises(KdbenchError, match=r"sample\.rounds takes a int, got 2\.5"):
        sample(rounds=2.5)
    with pytest.raises(KdbenchError, match=r"unknown value 'cod' for sample\.form; did you mean 'code'"):
        sample(form="cod")


@pytest.mark.parametrize("value", [0, -1.0])
def test_positive_fields_must_be(sample, value):
    with pytest.raises(KdbenchError, match=r"sample\.temperature must be greater than 0, got (0\.0|-1\.0)"):
        sample(temperature=value)


def test_methods_are_frozen_and_equal_by_value(sample):
    method = sample()
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.rounds = 4
    assert sample(rounds=4) == sample(rounds=4) != method
    assert hash(sample(rounds=4)) == hash(sample(rounds=4))


def test_params_leave_out_a_neutral_value_only(sample):
    assert sample().params == {"temperature": 4.0, "rounds": 3, "soft": True, "form": "paper"}
    assert sample(later=0.5).params["later"] == 0.5


def test_class_variables_are_no_parameters(sample):
    assert field_types(sample) == {
        "temperature": float, "rounds": int, "soft": bool, "form": Shape, "later": float,
    }  # fmt: skip


def test_attributes_without_annotation_are_facts(scratch_registry):
    """Not hyperparameters; with ClassVar or without, they are the same."""

    @registry.register
    class Bare(Method):
        needs = Needs(stages=True)
        family = "feature"
        coupled = True
        positive = ("weight",)
        weight: float = 1.0

    method = Bare(weight=2)
    assert list(field_types(Bare)) == ["weight"]
    assert method.params == {"weight": 2.0}
    assert (method.needs.stages, method.family, method.coupled) == (True, "feature", True)
    with pytest.raises(KdbenchError, match=r"bare\.weight must be greater than 0"):
        Bare(weight=0)


def test_overrides_tells_own_members_from_inherited_ones(sample):
    class Own(sample):
        def update(self, *args):
            pass

    class Grandchild(Own):
        pass

    assert overrides(Grandchild(), "update")
    assert not overrides(Grandchild(), "prepare")


def test_defaults_of_the_interface(sample):
    method = sample()
    assert method.skip(None) is None
    modules = method.build(None)
    assert isinstance(modules, nn.Module)
    assert list(modules.state_dict()) == []
    logits = torch.randn(2, 3)
    assert method.predict(Views({"weak": Outputs(logits)}, Needs()), modules) is logits
    with pytest.raises(
        NotImplementedError, match=r"Sample must define loss\(batch, student, teacher, modules\)"
    ):
        method.loss(None, None, None, modules)


# --- needs ---

FLAGS = {"embedding", "features", "stages", "preact", "classifier", "index"}


def test_flags_of_needs():
    names = {f.name for f in dataclasses.fields(Needs)}
    assert names == FLAGS | {"views", "teacher"}
    assert Needs() == Needs(("weak",), True, *[False] * 6)


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_a_union_has_what_either_has(flag):
    one = Needs(**{flag: True})
    assert Needs() | one == one | Needs() == one
    others = [getattr(Needs() | one, f) for f in FLAGS - {flag}]
    assert others == [False] * 5


def test_preact_may_be_asked_of_one_model():
    teacher, student = Needs(preact="teacher"), Needs(preact="student", stages=True)
    assert [teacher.of(role).preact for role in ("student", "teacher")] == [False, True]
    assert [Needs(preact=True).of(role).preact for role in ("student", "teacher")] == [True, True]
    assert (teacher | teacher).preact == (teacher | Needs()).preact == (Needs() | teacher).preact == "teacher"
    assert (teacher | student).preact is (teacher | Needs(preact=True)).preact is True
    assert student.of("teacher") == Needs(stages=True)


def test_a_union_of_views_keeps_order_and_names_each_once():
    assert (Needs(("weak",)) | Needs(("strong", "weak"))).views == ("weak", "strong")
    assert (Needs(("strong", "weak")) | Needs(("weak",))).views == ("strong", "weak")


def test_a_union_needs_a_teacher_if_either_does():
    none = Needs(teacher=False)
    assert (none | Needs()).teacher
    assert not (none | none).teacher


# --- the guard ---


@pytest.fixture
def outputs():
    """Everything, so that only the guard can hold it back; another number in each field."""

    def make(start):
        return Outputs(
            logits=torch.tensor([[start]]),
            embedding=torch.tensor([[start + 1]]),
            features=torch.tensor([[start + 2]]),
            stages=(torch.tensor([[start + 3]]),),
            preact=(torch.tensor([[start + 4]]),),
            classify=lambda x: x + start,
        )

    return {"weak": make(0.0), "strong": make(10.0)}


READS = {
    "embedding": (lambda v: v.embedding.item(), "embedding", 1.0),
    "features": (lambda v: v.features.item(), "features", 2.0),
    "stages": (lambda v: v.stages[0].item(), "stages", 3.0),
    "preact": (lambda v: v.preact[0].item(), "preact", 4.0),
    "classifier": (lambda v: v.classify(1.0), "classify", 1.0),
}


@pytest.mark.parametrize("need", READS)
def test_what_was_not_declared_cannot_be_read(outputs, need):
    read, shown, value = READS[need]
    with pytest.raises(
        UndeclaredNeed, match=f"reads '{shown}' but does not declare it; add it to its `needs`"
    ):
        read(Views(outputs, Needs(**{other: True for other in READS if other != need})))
    assert read(Views(outputs, Needs(**{need: True}))) == value


@pytest.mark.parametrize("need", READS)
def test_the_guard_holds_in_another_view_too(outputs, need):
    read, shown, value = READS[need]
    both = ("weak", "strong")
    with pytest.raises(UndeclaredNeed, match=shown):
        read(Views(outputs, Needs(views=both))["strong"])
    assert read(Views(outputs, Needs(views=both, **{need: True}))["strong"]) in (value + 10.0, 11.0)


def test_a_view_that_was_not_declared_cannot_be_read(outputs):
    with pytest.raises(UndeclaredNeed, match="the view 'strong'"):
        Views(outputs, Needs())["strong"]


def test_the_first_view_is_the_first_that_was_declared(outputs):
    """Whatever else the harness made, and in whatever order."""
    assert Views(outputs, Needs(views=("strong", "weak"))).logits.item() == 10.0
    assert Views(outputs, Needs(views=("strong",))).logits.item() == 10.0
    assert Views(outputs, Needs(views=("strong", "weak")))["weak"].logits.item() == 0.0


def test_the_index_must_be_declared():
    known = {"target": None, "epoch": 1.0, "last": False, "progress": None, "generator": None}
    with pytest.raises(UndeclaredNeed, match="'index'"):
        _ = Batch(**known).index
    assert Batch(**known, sample_index=torch.tensor([3])).index.item() == 3
