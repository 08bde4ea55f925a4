"""The checks themselves: a good plug-in passes all; a plug-in with one fault fails the check that is meant for it."""

import pytest

from kdbench import contract
from kdbench.contract.phase_checks import thresholds
from kdbench.errors import KdbenchError

GOOD = '''"""A made-up method."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench.method import Method, Needs, Paper
from kdbench.registry import register


@register
class Mine(Method):
    """Distance of scaled probabilities.

    Equation: L = ce_weight CE + gap_weight mean_i |g (p^t_i - p^s_i)|^2, p at temperature T, g learned.
    Deviations: made up.
    """

    paper = Paper(title="Verification of Forecasts", authors=("Glenn W. Brier",), year=1950)
    family = "logit"
    fidelity = "reconstruction"

    needs: ClassVar[Needs] = Needs()
    weights: ClassVar = {"ce_weight": "ce", "gap_weight": "gap"}
    zero_at_match: ClassVar = ("gap",)
    positive: ClassVar = ("temperature",)

    temperature: float = 2.0
    ce_weight: float = 1.0
    gap_weight: float = 3.0

    def build(self, context):
        modules = nn.Module()
        modules.gain = nn.Parameter(torch.ones(()))
        modules.register_buffer("count", torch.zeros(()))
        return modules

    def loss(self, batch, student, teacher, modules):
        pair = [(z / self.temperature).softmax(dim=1) for z in (student.logits, teacher.logits)]
        gap = (modules.gain * (pair[1] - pair[0])).square().sum(dim=1).mean()
        ce = cross_entropy(student.logits, batch.target)
        return {"ce": self.ce_weight * ce, "gap": self.gap_weight * gap}

    def update(self, batch, student, teacher, modules, terms):
        modules.count.add_(1)
'''

# in `loss`, before and after the terms are made
PREDICT = "    def predict(self, student, modules):\n        return student.logits * modules.gain"
GAP = "gap = (modules.gain * (pair[1] - pair[0])).square()"
KD_GAP = "gap = (modules.gain * pair[1] * (pair[1].log() - (student.logits / 4).log_softmax(1)))"
CE = "        ce = cross_entropy(student.logits, batch.target)\n"
NEEDS = "Needs()"


def _build(line: str) -> tuple[str, str]:
    return ("        return modules\n", f"        {line}\n        return modules\n")


def _before(*lines: str) -> tuple[str, str]:
    return (CE, CE + "".join(f"        {line}\n" for line in lines))


def _tag(line: str) -> tuple[str, str]:
    return ("    positive: ClassVar", f"    {line}\n    positive: ClassVar")


def _ce(term: str) -> tuple[str, str]:
    return ("self.ce_weight * ce,", f"self.ce_weight * {term},")


# what is done wrong: (the check that must fail, a part of its reason, replacements in GOOD)
FAULTS = {
    "a phase kept outside the buffers": (
        "phases",
        "across batch.epoch 30: the curves differ",
        [
            _before("ce = ce * getattr(modules, 'kept', 1.0)"),
            (
                "modules.count.add_(1)",
                "modules.kept = 2.0 if batch.epoch <= 30 else getattr(modules, 'kept', 1.0)",
            ),
        ],
    ),
    "another class name": ("name", "'other'", [("class Mine", "class Other")]),
    "no equation": ("docstring", "'Equation: ...'", [("Equation: L", "L")]),
    "no sentence": ("docstring", "whole sentence", [("scaled probabilities.", "scaled")]),
    "no paper": ("record", "does not set paper", [("paper = Paper(", "source = Paper(")]),
    "no Paper record": ("record", "Paper(...) or None", [("paper = Paper(", "paper = dict(")]),
    "a paper of its own": ("record", "in no paper", [('"reconstruction"', '"own"')]),
    "unknown fidelity": ("record", "or 'own', got 'good'", [('"reconstruction"', '"good"')]),
    "unknown family": ("record", "or 'self', got 'maps'", [('family = "logit"', 'family = "maps"')]),
    "types unchecked": (
        "params",
        "accepted",
        [("    def build", "    def __post_init__(self):\n        pass\n\n    def build")],
    ),
    "a tag for no field": ("tags", "nothing", [('("temperature",)', '("nothing",)')]),
    "an alias of nobody": ("tags", "nobody", [_tag('alias_of: ClassVar = "nobody"')]),
    "item": ("banned", ".item(", [_before("ce = ce if ce.item() > 0 else ce")]),
    "cuda": ("banned", ".cuda(", [_before("ce = ce if True else ce.cuda()")]),
    "print": ("banned", "print(", [_before("print(ce)")]),
    "a Python if on a value": ("no_sync", "line 44", [_before("ce = ce if ce > 0 else 2 * ce")]),
    "boolean indexing": (
        "no_sync",
        "value of a tensor",
        [_before("ce = ce + student.logits[student.logits > 0].sum() * 0")],
    ),
    "no scalar": ("terms", "0-dim", [_ce("student.logits")]),
    "no terms": ("terms", "must return a dict", [('return {"ce"', 'made = {"ce"')]),
    "names by phase": (
        "terms",
        "returns",
        [_before("if batch.epoch > 100: return {'ce': ce}")],
    ),
    "NaN for 1000 classes": (
        "terms",
        "nan",
        [_before("ce = ce + float('nan') * (teacher.logits.shape[1] > 999)")],
    ),
    "view on channels_last": (
        "layout",
        "view",
        [(NEEDS, "Needs(features=True)"), _before("ce = ce + student.features.view(-1).mean()")],
    ),
    "blind to a view": (
        "gradient",
        "'strong'",
        [
            (NEEDS, "Needs(views=('weak', 'strong'))"),
            _before("ce = ce + student['strong'].logits.detach().mean()"),
        ],
    ),
    "a parameter without use": (
        "gradient",
        "idle",
        [_build("modules.idle = nn.Parameter(torch.ones(3))")],
    ),
    "a detached parameter": ("gradient", "gain", [("modules.gain *", "modules.gain.detach() *")]),
    "a teacher that learns": (
        "teacher_gradient",
        "logits",
        [_before("ce = ce + 0 * teacher.logits.requires_grad_().sum()")],
    ),
    "a teacher's head that learns": (
        "teacher_gradient",
        "head",
        [_build("modules.head = context.teacher.classify.__self__")],
    ),
    "writes into the logits": ("pure", "writes into", [_before("teacher.logits.mul_(1.0)")]),
    "counts in loss": ("pure", "count", [_before("modules.count.add_(1)")]),
    "global random numbers": ("pure", "global random", [_before("ce = ce + torch.rand(()) * 0")]),
    "remembers the last call": (
        "pure",
        "two equal calls",
        [_before("modules.calls = getattr(modules, 'calls', 0) + 1", "ce = ce * modules.calls")],
    ),
    "log of a softmax": ("extremes", "10^4", [_ce("-pair[0].log().mean()")]),
    "a norm without care": (
        "extremes",
        "gradient",
        [(GAP, f"{GAP}.sum(1, keepdim=True).sqrt()")],
    ),
    "a detached weight": (
        "gradcheck",
        "partial_gradient",
        [_before("ce = ce * pair[0].detach().square().mean()")],
    ),
    "a needless excuse": (
        "gradcheck",
        "partial_gradient is declared",
        [_tag("partial_gradient: ClassVar = True")],
    ),
    "does not vanish": ("zero_at_match", "'ce'", [('("gap",)', '("gap", "ce")')]),
    "vanishes in secret": ("zero_at_match", "vanishes", [('("gap",)', "()")]),
    "raw logits": ("shift", "changes the loss", [_ce("student.logits.square().mean()")]),
    "declared raw": ("shift", "changes nothing", [_tag("shift_invariant: ClassVar = False")]),
    "places matter": (
        "sample_order",
        "changes the loss",
        [_ce("(pair[0][:, 0] * torch.arange(len(batch.target))).mean()")],
    ),
    "declared places": ("sample_order", "changes nothing", [_tag("order_dependent: ClassVar = True")]),
    "class 0 is special": ("class_order", "'ce'", [_ce("pair[0][:, 0].mean()")]),
    "coupled in secret": ("coupled", "batch mates", [_ce("pair[0].std(dim=0).mean()")]),
    "coupled in secret by chance": (
        "coupled",
        "batch mates",
        [_ce("(pair[0].std(dim=0) * torch.rand(pair[0].shape[1], generator=batch.generator)).mean()")],
    ),
    "a sum": ("coupled", "batch mates", [_ce("pair[0].square().sum()")]),
    "declared coupled": ("coupled", "mean over its halves", [_tag("coupled: ClassVar = True")]),
    "an undeclared need": ("needs", "'stages'", [_before("ce = ce + student.stages[0].mean()")]),
    "an undeclared view": ("needs", "'strong'", [_before("ce = ce + student['strong'].logits.mean()")]),
    "an undeclared index": ("needs", "'index'", [_before("ce = ce + 0 * batch.index.sum()")]),
    "an idle need": ("needs", "never read: stages", [(NEEDS, "Needs(stages=True)")]),
    "a need of the wrong model": (
        "needs",
        "'preact'",
        [(NEEDS, "Needs(preact='teacher')"), _before("ce = ce + student.preact[0].mean()")],
    ),
    "a need that only the teacher has": (
        "needs",
        "the student's preact",
        [(NEEDS, "Needs(preact=True)"), _before("ce = ce + 0 * teacher.preact[0].mean()")],
    ),
    "a need of nobody": ("tags", "'pupil'", [(NEEDS, "Needs(preact='pupil')")]),
    "ablates what it does not have": ("tags", "nothing", [_tag('ablate: ClassVar = {"nothing": (1.0,)}')]),
    "ablates its default": ("tags", "the default", [_tag('ablate: ClassVar = {"temperature": (2.0,)}')]),
    "ablates with a wrong value": ("tags", "takes a", [_tag('ablate: ClassVar = {"temperature": ("a",)}')]),
    "an idle view": ("needs", "'strong'", [(NEEDS, "Needs(views=('weak', 'strong'))")]),
    "an idle teacher": ("needs", "teacher", [("teacher.logits)]", "student.logits.detach())]")]),
    "a weight that does not switch off": (
        "weights",
        "gap_weight=0",
        [("self.gap_weight * gap", "(1 + self.gap_weight) * gap")],
    ),
    "a weight that switches more off": ("weights", "changes 'ce'", [_ce("self.gap_weight * ce")]),
    "a weight of nothing": ("weights", "none", [('"gap_weight": "gap"', '"gap_weight": "none"')]),
    "too many samples asked": ("minima", "min_batch", [_tag("min_batch: ClassVar = 2")]),
    "too many classes asked": ("minima", "min_classes", [_tag("min_classes: ClassVar = 3")]),
    "keeps what it does not use": ("predict", "without a predict", [_tag("keeps_modules: ClassVar = True")]),
    "uses what it does not keep": (
        "predict",
        "declare keeps_modules",
        [("    def update", f"{PREDICT}\n\n    def update")],
    ),
    "kd again": (
        "distinct",
        "that of kd",
        [(GAP, KD_GAP), ("temperature: float = 2.0", "temperature: float = 4.0")],
    ),
    "writes to the teacher": (
        "teacher_untouched",
        "teacher",
        [
            (NEEDS, "Needs(classifier=True)"),
            _before("teacher.classify.__self__.model.fc.bias.data.add_(0.1)"),
        ],
    ),
    "draws as its company does": (
        "alone",
        "alone and in the cohort",
        [("import torch\n", "import random\n\nimport torch\n"), _before("ce = ce * random.random()")],
    ),
    "remembers outside its buffers": (
        "resumes",
        "interrupted",
        [
            _before("ce = ce * (1 + 0.01 * getattr(modules, 'calls', 0))"),
            ("modules.count.add_(1)", "modules.calls = getattr(modules, 'calls', 0) + 1"),
        ],
    ),
    "climbs": ("learns", "after training", [_ce("-ce")]),
    "alters the student": (
        "exports",
        "has more",
        [_build("context.student.classify.__self__.model.more = nn.Parameter(torch.ones(1))")],
    ),
    "another cell than planned": (
        "row",
        "planned",
        [
            (
                "    def build",
                "    @property\n    def params(self):\n        return {'t': torch.rand(()).tolist()}\n\n    def build",
            )
        ],
    ),
    "no number at the end": ("row", "diverged", [_before("ce = ce * float('nan')")]),
}


def write(folder, *changes):
    """The good plug-in with some text replaced, as a file."""
    text = GOOD
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file = folder / "mine.py"
    file.write_text(text)
    return file


def test_a_good_plug_in_passes_everything(tmp_path, scratch_registry):
    text, passed = contract.report(str(write(tmp_path)))
    assert passed, text
    assert "FAIL" not in text
    assert f"{len(contract.CHECKS)} of {len(contract.CHECKS)} checks passed" in text
    assert all(name in text for name in contract.CHECKS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(tmp_path, scratch_registry, fault):
    check, part, changes = FAULTS[fault]
    (subject,) = contract.subjects(str(write(tmp_path, *changes)))
    reason = contract.run(contract.CHECKS[check], subject)
    assert reason is not None, f"{fault!r} passes {check}"
    assert part in reason, reason


def test_only_phases_sees_what_a_change_of_phase_forgets(tmp_path, scratch_registry):
    """The other loop checks train four epochs of 60 reference epochs: all behind the change at 30."""
    _, _, changes = FAULTS["a phase kept outside the buffers"]
    (subject,) = contract.subjects(str(write(tmp_path, *changes)))
    failed = [name for name in contract.BY_GROUP["loop"] if contract.run(contract.CHECKS[name], subject)]
    assert failed == ["phases"]


@pytest.mark.parametrize("name", ["ab", "ft", "fsp"])
def test_phases_sees_momentum_of_only_some_parameters(scratch_registry, monkeypatch, name):
    monkeypatch.setattr("kdbench.train.step.momentum_from_zero", lambda optimizer: None)
    (subject,) = contract.subjects(name)
    reason = contract.run(contract.CHECKS["phases"], subject)
    assert reason is not None
    assert reason.startswith(
        f"across batch.epoch 30 the cell ended as error: {name} failed in a training step"
    )


def test_the_thresholds_of_an_epoch_are_found(tmp_path, scratch_registry):
    """Through arithmetic, in one another's branches, in update; not those outside of the schedule."""
    loss = _before(
        "if 1 - (batch.epoch - 1) / 239 < 0.5: ce = ce * 2",
        "if 2 * batch.epoch >= 80: ce = ce if batch.epoch > 200 else ce * min(batch.epoch / 50, 1.0)",
        "ce = ce * max(0.5, batch.epoch * torch.ones(()).double()) if batch.epoch > 900 else ce",
    )
    update = ("modules.count.add_(1)", "modules.count.add_(float(7 == batch.epoch))")
    contract.subjects(str(write(tmp_path, loss, update)))
    assert thresholds(scratch_registry.create("mine", {})) == pytest.approx([7, 40, 50, 120.5, 200])


def test_a_method_that_cannot_be_planned_fails_alone(tmp_path, scratch_registry):
    text, passed = contract.report(str(write(tmp_path, (NEEDS, "Needs(views=('weak', 'third'))"))))
    assert not passed
    (subject,) = contract.subjects(str(tmp_path / "mine.py"))
    reason = contract.run(contract.CHECKS["learns"], subject)
    assert reason == "no cell can be planned: mine needs the view 'third'; add [views.third] to suite colours"
    assert subject.lab.together["kd"].row["status"] == "ok"
    assert max(map(len, text.splitlines()[1:])) <= 100


def test_every_check_can_fail():
    assert set(contract.CHECKS) == {check for check, _, _ in FAULTS.values()}


def test_every_check_states_its_fact_in_one_line():
    for name, check in contract.CHECKS.items():
        assert check.__doc__, name
        assert "\n" not in check.__doc__.strip(), name


def test_an_alias_may_be_parallel(tmp_path, scratch_registry):
    _, _, changes = FAULTS["kd again"]
    (subject,) = contract.subjects(str(write(tmp_path, *changes, _tag('alias_of: ClassVar = "kd"'))))
    assert contract.run(contract.CHECKS["distinct"], subject) is None


@pytest.mark.parametrize(
    ("line", "reason"), [("1 / 0", "ZeroDivisionError"), ("import no_such_module", "no_such_module")]
)
def test_a_file_that_fails_at_import_is_a_failure_not_a_traceback(tmp_path, scratch_registry, line, reason):
    file = tmp_path / "mine.py"
    file.write_text(GOOD + line + "\n")
    text, passed = contract.report(str(file))
    assert not passed
    assert reason in text
    assert "0 of 1 checks passed" in text


def test_a_broken_file_in_a_folder_fails_beside_a_whole_one(tmp_path, scratch_registry, monkeypatch):
    write(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    scratch_registry.load(tmp_path)
    two = {name: scratch_registry._entries[name] for name in ("mine", "broken")}
    monkeypatch.setattr(contract, "run", lambda check, subject: None)
    monkeypatch.setattr(scratch_registry, "entries", lambda: list(two.values()))
    text, passed = contract.report(None, tmp_path)
    assert not passed
    assert "broken imports: " in text
    assert "ZeroDivisionError" in text
    table = text.splitlines()[:4]
    assert max(map(len, table)) <= 80
    assert [line.split()[0] for line in table[1:]] == ["method", "mine", "broken"]
    assert table[2].count(".") == len(contract.CHECKS)
    assert table[3].count("X") == len(contract.CHECKS)


def test_a_shipped_file_is_the_shipped_method(scratch_registry):
    (subject,) = contract.subjects(str(scratch_registry._entries["dkd"].origin))
    assert subject.name == "dkd"
    assert subject.cls is scratch_registry.get("dkd")


def test_wrong_names_are_one_sentence(tmp_path, scratch_registry):
    with pytest.raises(KdbenchError, match=r"unknown method 'dkdd'.*did you mean 'dkd'"):
        contract.report("dkdd")
    with pytest.raises(KdbenchError, match="there is no file"):
        contract.report(str(tmp_path / "nothing.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(KdbenchError, match="registers no method"):
        contract.report(str(tmp_path / "empty.py"))
