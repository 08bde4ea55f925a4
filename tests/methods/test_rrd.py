from math import log, sqrt

import pytest
import torch

from kdbench.methods.rrd import Memory, queued, relation_loss
from tests.support import golden, naive, pairs


def memory(inputs, hyper, dtype):
    sizes = [inputs[f"{role}_embedding"].shape[1] for role in ("student", "teacher")]
    facts = [pairs.facts_of(torch.zeros(1, size, 1, 1)) for size in sizes]
    modules = Memory(pairs.context(10, None, *facts), hyper["feat_dim"], hyper["queue"])
    stored = {f"student.{part}": inputs[f"w/embed_s.{part}"] for part in ("weight", "bias")}
    pairs.install(modules, stored, dtype)
    for part in ("weight", "bias"):
        getattr(modules, part).copy_(inputs[f"w/embed_t.{part}"])
    modules.queue.copy_(inputs["queue"])
    modules.pointer.fill_(inputs["queue_ptr"].item())
    return modules


@golden.each("rrd")
def test_reference(case, dtype):
    """Two calls of `RRD.loss` and `update`."""
    inputs, hyper = case.inputs(dtype), case.hyper
    modules = memory(inputs, hyper, dtype)
    params = {
        "rrd_weight": hyper["weight"],
        "temperature": hyper["temperature_student"],
        "teacher_temperature": hyper["temperature_teacher"],
        "queue": hyper["queue"],
        "size": hyper["feat_dim"],
    }
    method = pairs.create("rrd", params)

    def step(suffix):
        views = [{"embedding": inputs[f"{role}_embedding{suffix}"]} for role in ("student", "teacher")]
        terms, _ = pairs.step("rrd", {}, *views, modules, **params)
        target = torch.zeros(len(views[0]["embedding"]), dtype=torch.long)
        detached = {key: value.detach() for key, value in terms.items()}
        return terms["rrd"], lambda: method.update(pairs.make_batch(target), None, None, modules, detached)

    total, update = step("")
    golden.check(case, {"total": total}, inputs)
    with torch.no_grad():
        update()
    golden.close(modules.queue, case.arrays["queue_after"], "queue_after")
    assert modules.pointer.item() == case.arrays["queue_ptr_after"].item()
    golden.close(step("_second")[0], case.arrays["total_second"], "total_second")


def test_agrees_with_the_loop():
    student, teacher, queue = (pairs.random_map(n, 3, seed=n) for n in (4, 5, 7))
    expected = []
    for f, g in zip(student.tolist(), teacher[:4].tolist(), strict=True):
        own, other = ([naive.dot(row, q) for q in queue.tolist()] for row in (f, g))
        p, q = naive.softmax(other, 0.4), naive.softmax(own, 2.0)
        expected.append(-naive.dot(p, [log(x) for x in q]))
    found = relation_loss(student, teacher[:4], queue, 2.0, 0.4)
    assert found.item() == pytest.approx(naive.mean(expected), rel=1e-10)


def test_a_queue_of_equals_says_nothing():
    """Every softmax is uniform: the entropy of K entries, whatever the embeddings are."""
    queue = torch.ones(8, 3, dtype=torch.float64)
    found = relation_loss(pairs.random_map(4, 3), pairs.random_map(4, 3, seed=1), queue, 0.1, 0.02)
    assert found.item() == pytest.approx(log(8))


def test_the_order_of_the_queue_does_not_count():
    student, teacher, queue = (pairs.random_map(n, 3, seed=n) for n in (4, 4, 7))
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    values = [relation_loss(student, teacher, q, 0.1, 0.02) for q in (queue, queue[order])]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize(
    ("pointer", "count", "expected"),
    [
        (0, 2, [10, 11, 2, 3, 4]),
        (3, 2, [0, 1, 2, 10, 11]),
        (4, 3, [11, 12, 2, 3, 10]),
        (0, 5, [10, 11, 12, 13, 14]),
        (1, 7, [16, 12, 13, 14, 15]),
    ],
)
def test_the_oldest_rows_are_replaced(pointer, count, expected):
    new = torch.arange(10.0, 10 + count)[:, None]
    queue = torch.arange(5.0)[:, None]
    found = queued(queue, torch.tensor(pointer), new)
    assert found.flatten().tolist() == expected
    assert queue.flatten().tolist() == [0, 1, 2, 3, 4]


def test_update_moves_the_queue_and_the_pointer():
    problem = pairs.Problem("rrd", queue=16, size=4)
    before = problem.modules.queue.clone()
    own = problem.modules.embed(*(views.embedding for views in problem.views()))[1]
    problem.terms()
    assert torch.equal(problem.modules.queue, before)
    for place in (6, 12, 2, 8):
        terms = problem.terms()
        problem.update(terms)
        assert problem.modules.pointer.item() == place
    # 24 rows went in, the i-th to place i % 16; it is row i % 6 of the batch
    rows = [(place + 16 if place < 8 else place) % 6 for place in range(16)]
    torch.testing.assert_close(problem.modules.queue, own[rows])
    assert torch.equal(terms["_queue"], problem.modules.queue)


def test_a_batch_larger_than_the_queue_fills_it():
    problem = pairs.Problem("rrd", queue=4, size=3)
    own = problem.modules.embed(*(views.embedding for views in problem.views()))[1]
    problem.update(problem.terms())
    torch.testing.assert_close(problem.modules.queue, own[-4:])
    assert problem.modules.pointer.item() == 0


def test_the_queue_begins_with_short_rows():
    """Columns have unit length, so K rows of size D are about sqrt(D / K) long."""
    queue = pairs.Problem("rrd", queue=2048, size=32).modules.queue
    torch.testing.assert_close(queue.norm(dim=0), torch.ones(32))
    assert queue.norm(dim=1).mean().item() == pytest.approx(sqrt(32 / 2048), rel=0.05)


def test_the_teacher_s_embedding_does_not_learn():
    modules = pairs.Problem("rrd", queue=16).modules
    assert set(dict(modules.named_parameters())) == {"student.weight", "student.bias"}


@pairs.on_pairs
def test_on_pairs(student, teacher):
    pairs.check("rrd", student, teacher, queue=32)
