"""Random sound methods, and random faults put into them: the contract passes the first and finds the second."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench import contract

METHOD = '''"""A made-up method."""

from typing import ClassVar

import torch
import torch.nn.functional as F

from kdbench.method import Method, Needs
from kdbench.registry import register


@register
class Mine(Method):
    """Made up.

    Equation: L = CE + weight gap.
    Deviations: made up.
    """

    paper = None
    family = "logit"
    fidelity = "own"

    needs: ClassVar[Needs] = Needs({needs})
    weights: ClassVar = {{"weight": "gap"}}
    zero_at_match: ClassVar = ("gap",)
    positive: ClassVar = ("temperature",)
    {tags}
    temperature: float = {temperature}
    weight: float = {weight}

    def loss(self, batch, student, teacher, modules):
        s, t = student.logits / self.temperature, teacher.logits / self.temperature
        ce = F.cross_entropy(student.logits, batch.target)
        p, q = s.softmax(1), t.softmax(1)
        gap = {gap}
        {line}
        return {{"ce": ce, "gap": self.weight * gap}}
'''
# each 0 at the teacher's logits, blind to a shift of all, a mean over samples, and no shipped method's
GAPS = (
    "(p - q).square().sum(1).mean()",
    "(p - q).pow(4).sum(1).mean()",
    "((s - s.mean(1, True)) - (t - t.mean(1, True))).square().mean()",
    "(p * (s.log_softmax(1) - t.log_softmax(1))).sum(1).mean()",
    "F.smooth_l1_loss(p, q)",
)
# fault -> (the check that must find it, its line, what else is replaced)
FAULTS = {
    "reads what it does not declare": ("needs", "ce = ce + 0 * student.{need}.mean()", {}),
    "declares what it does not read": ("needs", "", {"needs": "{need}=True"}),
    "reads the index": ("needs", "ce = ce + 0 * batch.index.sum()", {}),
    "reads another view": ("needs", "gap = gap + 0 * {side}['strong'].logits.mean()", {}),
    "writes into its input": ("pure", "{side}.logits.{inplace}", {}),
    "draws from the global generator": ("pure", "{term} = {term} + 0 * {draw}", {}),
    "not a number": ("terms", "{term} = {term} * float('{number}')", {}),
    "no scalar": ("terms", "{term} = {term}.expand({count})", {}),
    "another key later": ("terms", "if batch.epoch > 100: return {{'{key}': ce}}", {}),
    "no dict": ("terms", "return {value}", {}),
    "sums over the batch": ("coupled", "{term} = {term} * len(batch.target)", {}),
    "compares batch mates": ("coupled", "gap = gap + (p - q).mean(0).square().sum()", {}),
    "says it compares batch mates": ("coupled", "", {"tags": "coupled: ClassVar = True"}),
    "weighs places": ("sample_order", "ce = ce + (p[:, 0] * torch.arange(len(p))).mean()", {}),
    "prefers a class": ("class_order", "gap = gap + (p - q)[:, {place}].square().mean()", {}),
    "sees a shift": ("shift", "ce = ce + student.logits.square().mean()", {}),
    "a weight that switches more off": ("weights", "ce = ce * self.weight", {}),
    "moves a value to the host": ("banned", "ce = ce if ce.{host} is not None else ce", {}),
    "asks for a value": ("no_sync", "if {term} > 0: {term} = {term} * 1", {}),
    "teaches the teacher": ("teacher_gradient", "gap = gap + 0 * teacher.logits.requires_grad_().sum()", {}),
    "hides a part of its gradient": ("gradcheck", "gap = gap * (1 + p.detach()[:, 0].square().mean())", {}),
}  # fmt: skip
WORDS = {
    "need": st.sampled_from(["embedding", "features"]),
    "side": st.sampled_from(["student", "teacher"]),
    "inplace": st.sampled_from(["mul_(1.0)", "add_(0.0)", "zero_()", "clamp_(-5, 5)"]),
    "term": st.sampled_from(["ce", "gap"]),
    "draw": st.sampled_from(["torch.rand(())", "torch.randn(3).sum()", "torch.randperm(4).sum()"]),
    "number": st.sampled_from(["nan", "inf", "-inf"]),
    "count": st.sampled_from(["1", "2", "1, 1"]),
    "key": st.sampled_from(["gap", "more", "CE"]),
    "value": st.sampled_from(["ce", "[ce, gap]", "None", "{}", "ce, gap"]),
    "place": st.integers(0, 1),
    "host": st.sampled_from(["item()", "tolist()", "cpu()", "numpy()"]),
}
RANDOM = {
    "gap": st.sampled_from(GAPS),
    "temperature": st.integers(2, 6).map(float),
    "weight": st.integers(1, 9),
}


def write(folder, base, fault=None, words=None):
    line, changes = ("", {}) if fault is None else FAULTS[fault][1:]
    fill = words or {}
    text = METHOD.format(
        **{
            "needs": "",
            "tags": "",
            **base,
            "weight": float(base["weight"]),
            "line": line.format(**fill),
            **{key: value.format(**fill) for key, value in changes.items()},
        }
    )
    file = folder / "mine.py"
    file.write_text(text, "utf-8")
    return file


def judged(folder, *how):
    """The subject written by `write`, anew: a plug-in's code that changed is read again."""
    (subject,) = contract.subjects(str(write(folder, *how)))
    return subject


def found(folder, base, fault, words):
    name = FAULTS[fault][0]
    return contract.run(contract.CHECKS[name], judged(folder, base, fault, words))


def _settings(count):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


BASES, FILLED = st.fixed_dictionaries(RANDOM), st.fixed_dictionaries(WORDS)
QUICK = [*contract.BY_GROUP["static"], *contract.BY_GROUP["tensors"], "coupled", "needs", "weights", "shift"]


@_settings(4)
@given(base=BASES)
def test_a_sound_method_passes(tmp_path, scratch_registry, base):
    subject = judged(tmp_path, base)
    reasons = {name: contract.run(contract.CHECKS[name], subject) for name in QUICK}
    assert not {name: reason for name, reason in reasons.items() if reason}


@pytest.mark.parametrize("fault", FAULTS)
@_settings(2)
@given(base=BASES, words=FILLED)
def test_a_random_fault_is_found(tmp_path, scratch_registry, fault, base, words):
    assert found(tmp_path, base, fault, words), f"{fault} passes {FAULTS[fault][0]}"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@_settings(40)
@given(base=BASES, words=FILLED)
def test_a_random_fault_is_found_at_length(tmp_path, scratch_registry, fault, base, words):
    assert found(tmp_path, base, fault, words), f"{fault} passes {FAULTS[fault][0]}"
