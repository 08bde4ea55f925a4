from collections import Counter
from math import exp, log

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdbench.methods import crd
from kdbench.methods.crd import Banks, contrast_loss, draw_negatives, scores
from tests.support import golden, naive, pairs


def banks(inputs, hyper, dtype):
    facts = [pairs.facts_of(inputs[f"{role}_feat"][:, :, None, None]) for role in ("student", "teacher")]
    labels = torch.arange(hyper["n_data"]) % 10
    modules = Banks(pairs.context(10, labels, *facts), hyper["embed_dim"], hyper["nce_k"])
    names = {"student": "s", "teacher": "t"}
    stored = {
        f"{role}.{part}": inputs[f"w/embed_{short}.linear.{part}"]
        for role, short in names.items()
        for part in ("weight", "bias")
    }
    pairs.install(modules, stored, dtype)
    for role, name in (("student", "memory_v1"), ("teacher", "memory_v2")):
        getattr(modules, f"{role}_memory").copy_(inputs[name])
    return modules


@golden.each("crd")
def test_reference(case, dtype, monkeypatch):
    """Two calls of `CRD.loss` and `update` with the stored draws."""
    inputs, hyper = case.inputs(dtype), case.hyper
    modules = banks(inputs, hyper, dtype)
    method = pairs.create(
        "crd",
        {
            "crd_weight": hyper["beta"],
            "temperature": hyper["nce_t"],
            "negatives": hyper["nce_k"],
            "size": hyper["embed_dim"],
            "momentum": hyper["nce_m"],
        },
    )
    assert hyper["eps"] == crd.EPS

    def call(suffix):
        stored = inputs[f"contrast_index{suffix}"]
        monkeypatch.setattr(crd, "draw_negatives", lambda *_: stored[:, 1:])
        index = inputs[f"index{suffix}"]
        assert torch.equal(index, stored[:, 0])
        nothing = modules.student.weight.new_zeros(len(index), 10)
        views = [
            pairs.Views({"weak": pairs.Outputs(nothing, inputs[f"{role}_feat{suffix}"])}, method.needs)
            for role in ("student", "teacher")
        ]
        batch = pairs.make_batch(torch.zeros_like(index), index=index)
        terms = method.loss(batch, *views, modules)
        return terms, lambda: method.update(
            batch, *views, modules, {key: value.detach() for key, value in terms.items()}
        )

    terms, update = call("")
    golden.close(terms["_student"], case.arrays["embed_s"], "embed_s")
    golden.close(terms["_teacher"], case.arrays["embed_t"], "embed_t")
    losses, _ = modules.losses(terms["_student"], terms["_teacher"], inputs["contrast_index"], hyper["nce_t"])
    golden.check(case, {"total": terms["crd"], "s_loss": losses[0], "t_loss": losses[1]}, inputs)
    update()
    for i, role in enumerate(("student", "teacher")):
        expected = torch.tensor(case.arrays[f"Z_v{i + 1}"])
        torch.testing.assert_close(modules.normaliser[i].double(), expected, rtol=2e-5, atol=0)
        memory = getattr(modules, f"{role}_memory")
        golden.close(memory, case.arrays[f"memory_v{i + 1}_after"], "memory")
    before = modules.normaliser.clone()
    terms, update = call("_second")
    golden.close(terms["crd"], case.arrays["total_second"], "total_second")
    update()
    assert torch.equal(modules.normaliser, before)


def test_agrees_with_the_loop():
    anchors, memory = pairs.random_map(3, 4), pairs.random_map(10, 4, seed=1)
    index = torch.randint(10, (3, 6), generator=torch.Generator().manual_seed(2))
    z, total = 5.0, []
    for anchor, places in zip(anchors.tolist(), index.tolist(), strict=True):
        found = [exp(naive.dot(anchor, memory[i].tolist()) / 0.5) / z for i in places]
        noise = 5 / 10
        value = log(found[0] / (found[0] + noise + 1e-7))
        total.append(-value - sum(log(noise / (p + noise + 1e-7)) for p in found[1:]))
    loss = contrast_loss(scores(anchors, memory, index, 0.5), torch.tensor(z), 10)
    assert loss.item() == pytest.approx(naive.mean(total), rel=1e-10)


def test_chunks_change_nothing(monkeypatch):
    anchors, memory = pairs.random_map(5, 4).requires_grad_(), pairs.random_map(10, 4, seed=1)
    index = torch.randint(10, (5, 6), generator=torch.Generator().manual_seed(2))
    slopes = []
    for cells in (2**24, 20, 1):
        monkeypatch.setattr(crd, "CELLS", cells)
        found = scores(anchors, memory, index, 0.5)
        slopes.append((found.detach(), *torch.autograd.grad(found.sum(), anchors)))
    for found, slope in slopes[1:]:
        torch.testing.assert_close(found, slopes[0][0])
        torch.testing.assert_close(slope, slopes[0][1])


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("cells", [2**24, 60])
def test_negatives_are_of_other_classes_and_uniform(distinct, cells, monkeypatch):
    monkeypatch.setattr(crd, "CELLS", cells)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    index = torch.tensor([0, 3, 9] * 200)
    drawn = draw_negatives(index, labels, 4, distinct, torch.Generator().manual_seed(0))
    assert drawn.shape == (600, 4)
    assert (labels[drawn] != labels[index][:, None]).all()
    different = [len(set(row)) == 4 for row in drawn.tolist()]
    assert all(different) if distinct else not all(different)
    counts = Counter(drawn[::3].flatten().tolist())  # of sample 0: seven others, 800 draws
    assert set(counts) == {3, 4, 5, 6, 7, 8, 9}
    assert all(abs(count - 800 / 7) < 50 for count in counts.values())


def test_a_small_set_is_drawn_with_replacement():
    problem = pairs.Problem("crd", train_size=40, negatives=100)
    assert not problem.modules.distinct
    assert problem.terms()["crd"].isfinite()
    assert pairs.Problem("crd", train_size=40, negatives=32).modules.distinct  # 40 less 8 of the own class


def test_a_sure_positive_and_far_negatives_cost_nothing():
    found = torch.tensor([[1e9, 1e-9, 1e-9]])
    assert contrast_loss(found, torch.tensor(1.0), 4).item() == pytest.approx(0, abs=1e-6)
    level = torch.tensor([[0.5, 0.5]])  # K / N = 1/2: P = noise everywhere
    assert contrast_loss(level, torch.tensor(1.0), 2).item() == pytest.approx(2 * log(2), rel=1e-5)


def test_update_moves_the_batch_s_rows_only_and_fixes_z_once():
    problem = pairs.Problem("crd", negatives=8)
    old = problem.modules.student_memory.clone()
    assert problem.modules.normaliser.tolist() == [0, 0]
    terms = problem.terms()
    problem.update(terms)
    z, new = problem.modules.normaliser.clone(), problem.modules.student_memory
    rest = [i for i in range(40) if i not in problem.index.tolist()]
    assert torch.equal(new[rest], old[rest])
    mixed = 0.5 * old[problem.index] + 0.5 * terms["_student"].detach()
    torch.testing.assert_close(new[problem.index], mixed / mixed.norm(dim=1, keepdim=True))
    assert (z > 0).all()
    with torch.no_grad():
        problem.modules.student.weight.mul_(-1)
    problem.update(problem.terms())
    assert torch.equal(problem.modules.normaliser, z)


def test_the_banks_start_at_about_unit_length():
    memory = pairs.Problem("crd", negatives=8).modules.teacher_memory
    assert memory.shape == (40, 128)
    assert memory.square().sum(dim=1).mean().item() == pytest.approx(1, abs=0.05)


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("crd", student, teacher, negatives=16)


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return made


@pytest.mark.parametrize("count", [50_000, 1_281_167])
def test_memory_is_bounded_at_the_size_of_cifar100_and_imagenet(count):
    """No step of loss, gradient or update makes a tensor above a bank or `CELLS`; K rows of the bank for each of
    the 64 anchors would be 134 million numbers, 537 MB. In fake tensors: shapes alone."""
    facts = pairs.facts_of(torch.zeros(1, 64, 1, 1))
    modules = Banks(pairs.context(100, torch.arange(1000) % 100, facts, facts), 128, 16384)
    modules.distinct = True
    with FakeTensorMode(allow_non_fake_inputs=True), Largest() as largest:
        modules.normaliser = torch.zeros(2)
        for role in ("student", "teacher"):
            setattr(modules, f"{role}_memory", torch.zeros(count, 128))
        modules.labels = torch.zeros(count, dtype=torch.long)
        method = pairs.create("crd", {})
        outputs = [pairs.Outputs(torch.zeros(64, 100), torch.zeros(64, 64)) for _ in range(2)]
        views = [pairs.Views({"weak": each}, method.needs) for each in outputs]
        index = torch.zeros(64, dtype=torch.long)
        batch = pairs.make_batch(index, index=index)
        terms = method.loss(batch, *views, modules)
        terms["crd"].backward()
        method.update(batch, *views, modules, {key: value.detach() for key, value in terms.items()})
    assert modules.student.weight.grad.shape == (128, 64)
    assert count * 64 // 8 < largest.entries <= max(crd.CELLS, count * 128)
