"""A plug-in that passes every check of the contract, and faults that each make it fail one."""

GOOD = '''"""A made-up method."""

from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench.method import Method, Needs, Paper, linear_range
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
    space = {"temperature": linear_range(1.0, 4.0)}

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


def build(line: str) -> tuple[str, str]:
    return ("        return modules\n", f"        {line}\n        return modules\n")


def before(*lines: str) -> tuple[str, str]:
    return (CE, CE + "".join(f"        {line}\n" for line in lines))


def tag(line: str) -> tuple[str, str]:
    return ("    positive: ClassVar", f"    {line}\n    positive: ClassVar")


def ce_as(term: str) -> tuple[str, str]:
    return ("self.ce_weight * ce,", f"self.ce_weight * {term},")


# a random factor, and the teacher of `gap` with noise on every sample and class
CHANCE = "(1 + 0.1 * torch.randn(pair[0].shape, generator=batch.generator)).mean()"
DRAWN = "torch.randn(teacher.logits.shape, generator=batch.generator, device=batch.target.device)"
NOISY = f"student.logits, teacher.logits + 0.1 * {DRAWN}"
NOISE = ("(student.logits, teacher.logits)]", f"({NOISY})]")
FORGETS = ("    def update(", "    def unused(")

# what is done wrong: (the check that must fail, a part of its reason, replacements in GOOD)
FAULTS = {
    "a phase kept outside the buffers": (
        "phases",
        "across batch.epoch 30: the curves differ",
        [
            before("ce = ce * getattr(modules, 'kept', 1.0)"),
            (
                "modules.count.add_(1)",
                "modules.kept = 2.0 if batch.epoch <= 30 else getattr(modules, 'kept', 1.0)",
            ),
        ],
    ),
    "state in the class": (
        "resumes",
        "interrupted and not",
        [
            tag("memory = {}"),
            before("ce = ce * self.memory.get('factor', 1.0)"),
            ("modules.count.add_(1)", "self.memory['factor'] = 0.25 + self.memory.get('factor', 1.0) / 2"),
        ],
    ),
    "a prediction by the batch": (
        "predict",
        "depends on the others",
        [
            (
                "    def update(",
                f"{PREDICT.replace('* modules.gain', '- student.logits.mean(0)')}\n\n    def update(",
            )
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
    "an alias of nobody": ("tags", "nobody", [tag('alias_of: ClassVar = "nobody"')]),
    "item": ("banned", ".item(", [before("ce = ce if ce.item() > 0 else ce")]),
    "cuda": ("banned", ".cuda(", [before("ce = ce if True else ce.cuda()")]),
    "print": ("banned", "print(", [before("print(ce)")]),
    "a Python if on a value": ("no_sync", "line 45", [before("ce = ce if ce > 0 else 2 * ce")]),
    "a tensor of the CPU": (
        "no_sync",
        "line 45 mixes tensors of the CPU with those of a GPU",
        [before("ce = ce + (student.logits * torch.zeros(1, 10)).sum()")],
    ),
    "boolean indexing": (
        "no_sync",
        "value of a tensor",
        [before("ce = ce + student.logits[student.logits > 0].sum() * 0")],
    ),
    "no scalar": ("terms", "0-dim", [ce_as("student.logits")]),
    "no terms": ("terms", "must return a dict", [('return {"ce"', 'made = {"ce"')]),
    "names by phase": (
        "terms",
        "returns",
        [before("if batch.epoch > 100: return {'ce': ce}")],
    ),
    "NaN for 1000 classes": (
        "terms",
        "nan",
        [before("ce = ce + float('nan') * (teacher.logits.shape[1] > 999)")],
    ),
    "view on channels_last": (
        "layout",
        "view",
        [(NEEDS, "Needs(features=True)"), before("ce = ce + student.features.view(-1).mean()")],
    ),
    "blind to a view": (
        "gradient",
        "'strong'",
        [
            (NEEDS, "Needs(views=('weak', 'strong'))"),
            before("ce = ce + student['strong'].logits.detach().mean()"),
        ],
    ),
    "a parameter without use": (
        "gradient",
        "idle",
        [build("modules.idle = nn.Parameter(torch.ones(3))")],
    ),
    "a detached parameter": ("gradient", "gain", [("modules.gain *", "modules.gain.detach() *")]),
    "a teacher that learns": (
        "teacher_gradient",
        "logits",
        [before("ce = ce + 0 * teacher.logits.requires_grad_().sum()")],
    ),
    "a teacher's head that learns": (
        "teacher_gradient",
        "head",
        [build("modules.head = context.teacher.classify.__self__")],
    ),
    "writes into the logits": ("pure", "writes into", [before("teacher.logits.mul_(1.0)")]),
    "counts in loss": ("pure", "count", [before("modules.count.add_(1)")]),
    "global random numbers": ("pure", "global random", [before("ce = ce + torch.rand(()) * 0")]),
    "remembers the last call": (
        "pure",
        "two equal calls",
        [before("modules.calls = getattr(modules, 'calls', 0) + 1", "ce = ce * modules.calls")],
    ),
    "log of a softmax": ("extremes", "10^4", [ce_as("-pair[0].log().mean()")]),
    "a norm without care": (
        "extremes",
        "gradient",
        [(GAP, f"{GAP}.sum(1, keepdim=True).sqrt()")],
    ),
    "a detached weight": (
        "gradcheck",
        "partial_gradient",
        [before("ce = ce * pair[0].detach().square().mean()")],
    ),
    "a needless excuse": (
        "gradcheck",
        "partial_gradient is declared",
        [tag("partial_gradient: ClassVar = True")],
    ),
    "does not vanish": ("zero_at_match", "'ce'", [('("gap",)', '("gap", "ce")')]),
    "vanishes in secret": ("zero_at_match", "vanishes", [('("gap",)', "()")]),
    "raw logits": ("shift", "changes the loss", [ce_as("student.logits.square().mean()")]),
    "declared raw": ("shift", "changes nothing", [tag("shift_invariant: ClassVar = False")]),
    "places matter": (
        "sample_order",
        "changes the loss",
        [ce_as("(pair[0][:, 0] * torch.arange(len(batch.target))).mean()")],
    ),
    "places matter by chance": (
        "sample_order",
        "changes the loss",
        [ce_as(f"(pair[0][:, 0] * torch.arange(len(batch.target))).mean() * {CHANCE}")],
    ),
    "declared places by chance": (
        "sample_order",
        "changes nothing",
        [tag("order_dependent: ClassVar = True"), NOISE],
    ),
    "declared places": ("sample_order", "changes nothing", [tag("order_dependent: ClassVar = True")]),
    "class 0 is special by chance": (
        "class_order",
        "'ce'",
        [ce_as(f"pair[0][:, 0].mean() * {CHANCE}")],
    ),
    "class 0 is special beside noise": ("class_order", "'ce'", [ce_as("pair[0][:, 0].mean()"), NOISE]),
    "class 0 is special": ("class_order", "'ce'", [ce_as("pair[0][:, 0].mean()")]),
    "coupled in secret": ("coupled", "batch mates", [ce_as("pair[0].std(dim=0).mean()")]),
    "coupled in secret by chance": (
        "coupled",
        "batch mates",
        [ce_as("(pair[0].std(dim=0) * torch.rand(pair[0].shape[1], generator=batch.generator)).mean()")],
    ),
    "a sum": ("coupled", "batch mates", [ce_as("pair[0].square().sum()")]),
    "declared coupled": ("coupled", "mean over its halves", [tag("coupled: ClassVar = True")]),
    "draws for the whole batch": ("separable", "declare separable = False", [NOISE, FORGETS]),
    "declared inseparable": ("separable", "mean over parts", [tag("separable = False"), FORGETS]),
    "remembers and is declared separable": ("separable", "never separable", [tag("separable = True")]),
    "declared separable": (
        "separable",
        "cannot be computed apart",
        [
            ce_as("pair[0].std(dim=0).mean()"),
            tag("coupled: ClassVar = True\n    separable = True"),
            FORGETS,
        ],
    ),
    "an undeclared need": ("needs", "'stages'", [before("ce = ce + student.stages[0].mean()")]),
    "an undeclared view": ("needs", "'strong'", [before("ce = ce + student['strong'].logits.mean()")]),
    "an undeclared index": ("needs", "'index'", [before("ce = ce + 0 * batch.index.sum()")]),
    "an idle need": ("needs", "never read: stages", [(NEEDS, "Needs(stages=True)")]),
    "a need of the wrong model": (
        "needs",
        "'preact'",
        [(NEEDS, "Needs(preact='teacher')"), before("ce = ce + student.preact[0].mean()")],
    ),
    "a need that only the teacher has": (
        "needs",
        "the student's preact",
        [(NEEDS, "Needs(preact=True)"), before("ce = ce + 0 * teacher.preact[0].mean()")],
    ),
    "a need of nobody": ("tags", "'pupil'", [(NEEDS, "Needs(preact='pupil')")]),
    "ablates what it does not have": ("tags", "nothing", [tag('ablate: ClassVar = {"nothing": (1.0,)}')]),
    "ablates its default": ("tags", "the default", [tag('ablate: ClassVar = {"temperature": (2.0,)}')]),
    "ablates with a wrong value": ("tags", "takes a", [tag('ablate: ClassVar = {"temperature": ("a",)}')]),
    "an idle view": ("needs", "'strong'", [(NEEDS, "Needs(views=('weak', 'strong'))")]),
    "an idle teacher": ("needs", "teacher", [("teacher.logits)]", "student.logits.detach())]")]),
    "a weight that does not switch off": (
        "weights",
        "gap_weight=0",
        [("self.gap_weight * gap", "(1 + self.gap_weight) * gap")],
    ),
    "a weight that switches more off": ("weights", "changes 'ce'", [ce_as("self.gap_weight * ce")]),
    "a weight of nothing": ("weights", "none", [('"gap_weight": "gap"', '"gap_weight": "none"')]),
    "a space for no field": ("space", "the parameters are", [('{"temperature": linear', '{"heat": linear')]),
    "a space of plain numbers": ("space", "log_range", [("linear_range(1.0, 4.0)", "(1.0, 4.0)")]),
    "a default outside its space": ("space", "but the default is 2.0", [("(1.0, 4.0)", "(1.0, 1.5)")]),
    "a space that begins at a refused value": ("space", "refused", [("(1.0, 4.0)", "(0.0, 4.0)")]),
    "a space that ends at infinity": (
        "space",
        "temperature=4.0",
        [before("ce = ce / (4 - self.temperature)")],
    ),
    "too many samples asked": ("minima", "min_batch", [tag("min_batch: ClassVar = 2")]),
    "too many classes asked": ("minima", "min_classes", [tag("min_classes: ClassVar = 3")]),
    "keeps what it does not use": ("predict", "without a predict", [tag("keeps_modules: ClassVar = True")]),
    "uses what it does not keep": (
        "predict",
        "declare keeps_modules",
        [("    def update", f"{PREDICT}\n\n    def update")],
    ),
    "a momentum of no term": (
        "options",
        "momenta name gone",
        [tag('momentum_offsets = {"ce": -0.1, "gone": 0.1}')],
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
            before("teacher.classify.__self__.model.fc.bias.data.add_(0.1)"),
        ],
    ),
    "draws as its company does": (
        "alone",
        "alone and in the cohort",
        [("import torch\n", "import random\n\nimport torch\n"), before("ce = ce * random.random()")],
    ),
    "remembers outside its buffers": (
        "resumes",
        "interrupted",
        [
            before("ce = ce * (1 + 0.01 * getattr(modules, 'calls', 0))"),
            ("modules.count.add_(1)", "modules.calls = getattr(modules, 'calls', 0) + 1"),
        ],
    ),
    "climbs": ("learns", "after training", [ce_as("-ce")]),
    "alters the student": (
        "exports",
        "has more",
        [build("context.student.classify.__self__.model.more = nn.Parameter(torch.ones(1))")],
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
    "no number at the end": ("row", "diverged", [before("ce = ce * float('nan')")]),
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
