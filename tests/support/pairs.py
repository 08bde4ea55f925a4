"""Small made-up models of three shapes, to run a method on a pair without networks.

``cnn`` has three stages, ``wide`` the same with more channels, ``deep`` four stages and another last map than
its last stage, ``vit`` four stages of equal shape, no BatchNorm and a head on one token.
"""

from itertools import chain

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kdbench.method import ModelFacts, Outputs, StageFacts, Views, overrides
from kdbench.registry import create
from tests.support import naive
from tests.support.standins import batch as make_batch
from tests.support.standins import context, with_totals

B, C = 6, 5
PAIRS = [("cnn", "wide"), ("cnn", "cnn"), ("deep", "wide"), ("cnn", "vit"), ("vit", "wide"), ("vit", "vit")]
on_pairs = pytest.mark.parametrize(("student", "teacher"), PAIRS)
STAGES = {
    "cnn": [(4, 8), (6, 4), (8, 2)],
    "wide": [(6, 8), (8, 4), (12, 2)],
    "deep": [(4, 8), (6, 4), (8, 2), (8, 2)],
    "vit": [(8, 4)] * 4,
}


class Model:
    """Stages are leaves; features, embedding and logits follow from the last one."""

    def __init__(self, kind, seed, relu=True, dtype=torch.float32):
        draw = torch.Generator().manual_seed(seed)
        self.kind, self.shapes = kind, STAGES[kind]
        channels = self.shapes[-1][0]
        self.size = channels + 2 if kind == "deep" else channels
        self.weight = torch.randn(C, self.size, generator=draw)
        self.bias = torch.randn(C, generator=draw)
        self.widen = torch.randn(self.size, channels, generator=draw)
        self.bn = [
            (torch.rand(c, generator=draw) + 0.5, torch.randn(c, generator=draw)) for c, _ in self.shapes
        ]
        self.before = [torch.randn(B, c, n, n, generator=draw).to(dtype) for c, n in self.shapes]

    def classify(self, embedding):
        return embedding @ self.weight.to(embedding).T + self.bias.to(embedding)

    def facts(self):
        vit = self.kind == "vit"
        norms = [(None, None)] * 4 if vit else self.bn
        stages = tuple(StageFacts(c, (n, n), *bn) for (c, n), bn in zip(self.shapes, norms, strict=True))
        size = self.shapes[-1][1]
        return ModelFacts(stages, self.size, (size, size), self.size, self.classify, not vit, True)

    def outputs(self, leaves):
        stages = tuple(leaves) if self.kind == "vit" else tuple(map(torch.relu, leaves))
        last = stages[-1]
        if self.kind == "deep":
            last = torch.einsum("dc,bchw->bdhw", self.widen.to(last), last)
        embedding = last[:, :, 0, 0] if self.kind == "vit" else last.mean((2, 3))
        preact = tuple(leaves)
        return Outputs(self.classify(embedding), embedding, last, stages, preact, self.classify)


class Problem:
    """A method on a pair of models: ``terms(epoch)``, ``student_leaves`` and ``modules``."""

    def __init__(self, name, student="cnn", teacher="wide", train_size=40, seed=0, **params):
        self.method = create(name, params)
        self.student, self.teacher = Model(student, seed + 1), Model(teacher, seed + 2)
        self.context = context(
            C, torch.arange(train_size) % C, self.student.facts(), self.teacher.facts(), batch_size=B
        )
        self.target = torch.tensor([0, 3, 1, 1, 2, 4])
        self.index = torch.tensor([0, 3, 1, 6, 2, 9])
        self.student_leaves = [x.clone().requires_grad_() for x in self.student.before]
        self.teacher_leaves = list(self.teacher.before)
        self.skipped = self.method.skip(self.context)
        if self.skipped is None:
            torch.manual_seed(seed)
            self.modules = self.method.build(self.context)
            self.prepare()

    def prepare(self):
        if overrides(self.method, "prepare"):
            with torch.no_grad():
                self.method.prepare(self.context, [(self.batch(240.0), self.views()[1])], self.modules)

    def batch(self, epoch):
        return make_batch(self.target, epoch, index=self.index)

    def views(self):
        pairs = ((self.student, self.student_leaves), (self.teacher, self.teacher_leaves))
        return tuple(Views({"weak": m.outputs(x)}, self.method.needs) for m, x in pairs)

    def terms(self, epoch=240.0):
        return self.method.loss(self.batch(epoch), *self.views(), self.modules)

    def update(self, terms, epoch=240.0):
        detached = {key: value.detach() for key, value in terms.items()}
        with torch.no_grad():
            self.method.update(self.batch(epoch), *self.views(), self.modules, detached)


def check(name, student="cnn", teacher="wide", epochs=(1.0, 240.0), on_logits=True, **params):
    """Same finite terms in every phase, in FakeTensorMode too (one pair); over the phases every parameter
    learns; kd_weight adds the textbook's T^2 KL, of standardised logits with ``standardize``."""
    problem = Problem(name, student, teacher, **params)
    assert problem.skipped is None, problem.skipped
    learned, keys, views_learned = set(), None, False
    before = [leaf.clone() for leaf in problem.student_leaves + problem.teacher_leaves]
    for epoch in epochs:
        terms = problem.terms(epoch)
        summed = [value for key, value in terms.items() if not key.startswith("_")]
        assert keys in (None, set(terms))
        keys = set(terms)
        assert all(value.ndim == 0 and value.isfinite() for value in summed), terms
        problem.modules.zero_grad()
        torch.stack(summed).sum().backward()
        grads = [p.grad for p in problem.modules.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in grads)
        learned |= {n for n, p in problem.modules.named_parameters() if p.grad is not None and p.grad.any()}
        views_learned |= any(leaf.grad is not None and leaf.grad.any() for leaf in problem.student_leaves)
        problem.update(terms, epoch)
    assert views_learned
    missing = {n for n, _ in problem.modules.named_parameters()} - learned
    assert not missing, missing
    now = problem.student_leaves + problem.teacher_leaves
    assert all(torch.equal(old, new) for old, new in zip(before, now, strict=True))
    if (student, teacher) == PAIRS[0]:
        with FakeTensorMode(allow_non_fake_inputs=True):
            problem.update(problem.terms(epochs[0]), epochs[0])
    if on_logits:
        logits = [v.logits.tolist() for v in problem.views()]
        scores = [[naive.standardized(row) for row in rows] for rows in logits]
        for switch, pair in ((False, logits), (True, scores)):
            added = {"kd_weight": 0.7, "standardize": switch}
            with_kd = Problem(name, student, teacher, **params, **added).terms()["kd"]
            assert with_kd.item() == pytest.approx(0.7 * naive.soft_kl(*pair, 4.0), rel=1e-4)
    return problem


def step(name, inputs, student, teacher, modules=None, epoch=240.0, **params):
    """(The terms, the same under the stored names) of the stored ``inputs``; ``student`` and ``teacher`` are
    fields of Outputs. Logits that are not stored are zeros."""
    method = create(name, params)
    some = next(iter(student.values()))
    some = some[0] if isinstance(some, tuple) else some
    stored = [inputs[key] for key in inputs if key.endswith("_logits")]
    nothing = some.new_zeros(len(some), stored[0].shape[1] if stored else 10)
    logits = [inputs.get(f"{role}_logits", nothing) for role in ("student", "teacher")]
    views = [
        Views({"weak": Outputs(z, **fields)}, method.needs)
        for z, fields in zip(logits, (student, teacher), strict=True)
    ]
    target = inputs.get("target", torch.zeros(len(some), dtype=torch.long))
    terms = method.loss(make_batch(target, epoch), *views, nn.Module() if modules is None else modules)
    named = with_totals(terms)
    if "student_logits" not in inputs:
        named = {"total": named["total"]}
    return terms, named


def install(modules: nn.Module, weights: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Put the tensors ``weights`` (state-dict names) in the parameters' places: they get the gradient."""
    modules.to(dtype)
    for name, tensor in weights.items():
        path, _, leaf = name.rpartition(".")
        owner = modules.get_submodule(path)
        assert getattr(owner, leaf).shape == tensor.shape, name
        owner._parameters.pop(leaf, None)
        owner._buffers.pop(leaf, None)
        setattr(owner, leaf, tensor)


def flat(rows):
    """[[1, 2], [3]] -> [1, 2, 3]"""
    return list(chain.from_iterable(rows))


def stage_inputs(inputs, model):
    """The stored maps ``<model>_feat0`` ... in order."""
    names = sorted(name for name in inputs if name.startswith(f"{model}_feat") and name[-1].isdigit())
    return tuple(inputs[name] for name in names)


def random_map(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def facts_of(features):
    """The facts of a model with one stage, ``features``, and a linear head."""
    channels, size = features.shape[1], tuple(features.shape[2:])
    return ModelFacts((StageFacts(channels, size),), channels, size, channels, None, True, True)
