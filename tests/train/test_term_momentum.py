"""A momentum per group of loss terms: DOT's released optimiser, a loop of its definition, and runs of the harness."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from kdbench import registry
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.modules import fresh
from kdbench.errors import KdbenchError
from kdbench.losses import sort_to_target, swap_top
from kdbench.method import Batch, Method, Needs, Outputs, Views, momentum_offset
from kdbench.train.callbacks import Progress
from kdbench.train.cohort import Cohort, train_cohort
from kdbench.train.step import Optimisation, Step, call_loss
from kdbench.train.term_momentum import GroupGradient, TermMomentum
from tests.support import golden
from tests.support.loops import After, same, state_of
from tests.support.recorders import Overwriting

registry.load()
GAP = {"momentum_gap": [0.075]}

# --- the rule ---


@golden.each("dot")
def test_the_released_optimiser(case, dtype):
    """Parameters after each of three steps.

    The release leaves the weight decay out of the first step of a parameter that the KD loss alone reaches; here it is
    never left out. So there the first gradient is handed in less that decay.
    """
    hyper, inputs = case.hyper, case.inputs(dtype)
    parameters = {name: nn.Parameter(inputs[f"param_{name}"].clone()) for name in ("a", "b")}
    decay = hyper["weight_decay"]
    optimizer = TermMomentum(parameters.values(), hyper["lr"], hyper["momentum"], weight_decay=decay)
    for step in (1, 2, 3):
        slopes = {
            side: [inputs.get(f"gradient_{side}_{name}_step{step}") for name in parameters]
            for side in ("task", "kd")
        }
        for place, parameter in enumerate(parameters.values()):
            if step == 1 and slopes["task"][place] is None:
                slopes["kd"][place] = slopes["kd"][place] - decay * parameter.detach()
        optimizer.step(
            [
                GroupGradient(hyper["delta"], False, slopes["kd"]),
                GroupGradient(-hyper["delta"], True, slopes["task"]),
            ]
        )
        for name, parameter in parameters.items():
            golden.close(parameter, case.arrays[f"param_{name}_step{step}"], f"{case.name} {name} {step}")


def test_a_case_has_a_parameter_of_each_kind():
    """Reached by both losses, by the task's alone, by the KD loss alone: the golden cases cover all three."""
    kinds = {
        tuple(f"gradient_{side}_b_step1" in case.arrays for side in ("task", "kd"))
        for case in golden.cases("dot")
    }
    assert kinds == {(True, True), (True, False), (False, True)}


def by_hand(start, slopes, offsets, decayed, momentum, decay, lr, nesterov):
    """One number after all steps; ``slopes``: a list per step of each group's slope or None."""
    weight, speeds = start, [0.0] * len(offsets)
    for step in slopes:
        reaching = [group for group, slope in enumerate(step) if slope is not None]
        carrier = decayed if decayed in reaching else reaching[0] if reaching else None
        moved = 0.0
        for group in reaching:
            mine = momentum + (offsets[group] if len(reaching) > 1 else 0.0)
            slope = step[group] + (decay * weight if group == carrier else 0.0)
            speeds[group] = mine * speeds[group] + slope
            moved += slope + mine * speeds[group] if nesterov else speeds[group]
        weight -= lr * moved
    return weight


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decayed", [0, 1, 2])
def test_three_groups_are_a_loop_of_the_definition(nesterov, decayed):
    """Eight parameters, one per set of groups that reach it; from the fourth step on the sets move round."""
    offsets, settings = (-0.075, 0.025, 0.05), {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(8, dtype=torch.float64, generator=draw)
    numbers = torch.randn(6, 3, 8, dtype=torch.float64, generator=draw)

    def reaches(step, group, place):
        return (place + (step >= 3)) >> group & 1

    parameters = [nn.Parameter(value.clone()) for value in start]
    optimizer = TermMomentum(parameters, 0.1, **settings)
    for step in range(6):
        optimizer.step(
            [
                GroupGradient(
                    offsets[group],
                    group == decayed,
                    [numbers[step, group, p] if reaches(step, group, p) else None for p in range(8)],
                )
                for group in range(3)
            ]
        )
    for place, parameter in enumerate(parameters):
        slopes = [
            [numbers[step, g, place].item() if reaches(step, g, place) else None for g in range(3)]
            for step in range(6)
        ]
        expected = by_hand(start[place].item(), slopes, offsets, decayed, 0.9, 0.1, 0.1, nesterov)
        assert parameter.item() == pytest.approx(expected, rel=1e-12), place


@pytest.mark.parametrize("nesterov", [False, True])
def test_two_buffers_of_one_momentum_are_nearly_sgd(nesterov):
    """The sum of two fp32 buffers rounds elsewhere than one buffer of the sum: 1e-5 at most after 50 steps."""
    draw = torch.Generator().manual_seed(1)
    start = torch.randn(1000, generator=draw)
    one, two = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings = {"lr": 0.05, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 5e-4}
    plain, split = torch.optim.SGD([one], **settings), TermMomentum([two], **settings)
    for _ in range(50):
        first, second = torch.randn(2, 1000, generator=draw)
        one.grad = first + second
        plain.step()
        split.step([GroupGradient(-1e-12, True, [first]), GroupGradient(1e-12, False, [second])])
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


# --- the step ---


class Pulls(Method):
    """Two terms of a linear student, and a module that the second alone trains; ``quiet`` has no gradient."""

    name = "pulls"
    needs = Needs(teacher=False)
    momentum_offsets = {"ce": -0.1, "kd": 0.05}

    def loss(self, batch, student, teacher, modules):
        logits = student.logits
        return {
            "ce": logits.square().sum(),
            "kd": (modules(logits) - 1).square().sum(),
            "quiet": torch.zeros(()),
        }


SETTINGS = Optimisation(lr=0.01, momentum=0.9, weight_decay=0.1)


def nets():
    torch.manual_seed(0)
    return nn.Linear(3, 2).double(), nn.Linear(2, 2).double()


def train(step, student, count=4):
    images = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    batch = Batch(torch.zeros(4, dtype=torch.int64), 1.0, False, torch.tensor(0.0), torch.Generator())
    for _ in range(count):
        step(batch, [(Views({"weak": Outputs(student(images))}, Pulls.needs), None)])


def test_a_step_takes_a_gradient_per_group():
    """The student moves by the sum of two buffers, the module by one of the plain momentum."""
    (student, head), (other, twin) = nets(), nets()
    train(Step(Pulls(), student, head, SETTINGS), student)
    images = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3)
    weights = [*other.parameters(), *twin.parameters()]
    speeds = {(term, place): 0.0 for term in ("ce", "kd") for place in range(4)}
    for _ in range(4):
        logits = other(images)
        terms = {"ce": logits.square().sum(), "kd": (twin(logits) - 1).square().sum()}
        for term, value in terms.items():
            slopes = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            for place, slope in enumerate(slopes):
                if slope is not None:
                    alone = place >= 2
                    decay = 0.1 * weights[place].detach() if term == "ce" or alone else 0.0
                    momentum = 0.9 if alone else {"ce": 0.8, "kd": 0.95}[term]
                    speeds[term, place] = momentum * speeds[term, place] + slope + decay
        with torch.no_grad():
            for place, weight in enumerate(weights):
                weight -= 0.01 * (speeds["ce", place] + speeds["kd", place])
    for mine, expected in zip([*student.parameters(), *head.parameters()], weights, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)
        assert mine.grad is None


def test_offsets_of_zero_are_plain_sgd_to_the_bit():
    class Level(Pulls):
        momentum_offsets = {"ce": 0.0, "kd": 0.0}

    class Silent(Pulls):
        momentum_offsets = {}

    ends = []
    for method in (Level(), Silent()):
        student, head = nets()
        train(Step(method, student, head, SETTINGS), student)
        ends.append([p.detach() for p in (*student.parameters(), *head.parameters())])
    assert same(*ends)


def test_equal_offsets_other_than_zero_are_refused():
    class Alike(Pulls):
        name = "alike"
        momentum_offsets = {"ce": 0.05, "kd": 0.05, "quiet": 0.05}

    student, head = nets()
    with pytest.raises(KdbenchError, match=r"alike: all of its terms have the momentum offset 0\.05"):
        train(Step(Alike(), student, head, SETTINGS), student)


def test_a_restored_step_goes_on_with_all_buffers():
    (student, head), (other, twin) = nets(), nets()
    step, again = Step(Pulls(), student, head, SETTINGS), Step(Pulls(), other, twin, SETTINGS)
    train(step, student)
    other.load_state_dict(student.state_dict())
    twin.load_state_dict(head.state_dict())
    again.load_state_dict(copy.deepcopy(step.state_dict()))
    for each, net in ((step, student), (again, other)):
        train(each, net)
    assert same([*student.parameters()], [*other.parameters()])
    assert same([*head.parameters()], [*twin.parameters()])


def test_the_rate_may_be_on_the_device():
    """A step that is recorded reads its rate from a tensor."""
    (student, head), (other, twin) = nets(), nets()
    step, moved = Step(Pulls(), student, head, SETTINGS), Step(Pulls(), other, twin, SETTINGS)
    moved.move_rate(torch.device("cpu"))
    for each, net in ((step, student), (moved, other)):
        each.set_rate(0.03125)  # the same number in fp32 and fp64
        train(each, net)
    assert same([*student.parameters()], [*other.parameters()])


# --- the option momentum_gap in real runs ---


def test_a_gap_splits_the_task_from_all_other_terms():
    mlkd = registry.create("mlkd", {"momentum_gap": 0.05})
    assert [momentum_offset(mlkd, term) for term in ("ce", "instance", "class")] == [-0.05, 0.05, 0.05]


def test_a_gap_of_zero_is_no_other_cell(lab):
    (plain,), (zero,) = lab.cells("kd"), lab.cells("kd", sets={"kd": {"momentum_gap": [0.0]}})
    (other,) = lab.cells("kd", sets={"kd": GAP})
    assert plain.id == zero.id != other.id
    assert plain == zero
    assert other.variant == "momentum_gap=0.075"


@pytest.mark.parametrize("name", ["kd", "crd", "dhkd", "mlkd"])
def test_stopped_and_resumed_is_uninterrupted(lab, name):
    (cell,) = lab.cells(name, sets={name: GAP})
    (plain,) = lab.run(lab.cells(name)).values()
    (whole,) = lab.using(work="whole").run([cell]).values()
    assert whole.row["status"] == "ok", whole.row["error"]
    assert not same(whole.student, plain.student)
    for questions, position in ((2, (0, 2)), (8, (1, 3))):
        other = lab.using(work=f"stopped{questions}")
        assert train_cohort(other.job([cell]), stop=After(questions))[1]
        state = state_of(other, cell)
        assert (state["epoch"], state["step"]) == position
        (resumed,) = other.run([cell]).values()
        assert same(resumed.student, whole.student), position
        assert same(resumed.curves, whole.curves), position


def test_a_recorded_step_is_an_eager_one(lab):
    lab = lab.using(epochs=3, batch_size=12, schedule="onecycle")
    (cell,) = lab.cells("kd", sets={"kd": GAP})
    eager = train_cohort(lab.job([cell]))[0][0]
    job = dataclasses.replace(lab.using(work="r").job([cell]), graphs="sequential")
    recorder = Overwriting()
    fast = Cohort(job, Progress(), recorder).run(lambda: False)[0][0]
    assert len(recorder.recorded) == 2  # the teacher and the cell
    for name, value in eager.student.items():
        torch.testing.assert_close(fast.student[name].float(), value.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "ce",
            {"momentum_gap": 0.1},
            r"ce\.momentum_gap cannot be set: it is for methods with the term 'ce'",
        ),
        ("ce", {"teacher_fix": "swap"}, r"ce\.teacher_fix cannot be set: the method has no teacher"),
        ("tfkd", {"teacher_fix": "sort"}, r"tfkd\.teacher_fix cannot be set: the method has no teacher"),
        ("at", {"teacher_fix": "swap"}, "does not read the teacher's logits while kd_weight is 0"),
        ("sdd", {"teacher_fix": "swap"}, "does not read the teacher's logits$"),
        ("kd", {"teacher_fix": "turn"}, r"unknown value 'turn' for kd\.teacher_fix"),
        ("kd", {"momentum_gap": "x"}, r"kd\.momentum_gap takes a finite float"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(name, params, message):
    with pytest.raises(KdbenchError, match=message):
        registry.create(name, params)


def test_a_momentum_outside_of_its_range_is_refused(lab):
    with pytest.raises(KdbenchError, match=r"kd: the recipe's momentum 0\.9 \+0\.1 is not in the range"):
        lab.cells("kd", sets={"kd": {"momentum_gap": [0.1]}})


def test_a_parameter_called_like_an_option_is_refused(scratch_registry):
    class Clash(Method):
        teacher_fix: str = "none"

    with pytest.raises(KdbenchError, match=r"clash\.teacher_fix is an option of every method"):
        registry.register(Clash)


# --- the option teacher_fix ---


@pytest.mark.parametrize(("fix", "function"), [("swap", swap_top), ("sort", sort_to_target)])
@pytest.mark.parametrize("name", ["kd", "dkd", "crd"])
def test_a_method_is_shown_the_corrected_teacher(fix, function, name):
    """The terms are those of the plain method with a teacher that was corrected by hand."""
    params = {"kd_weight": 1.0} if name == "crd" else {}
    plain, fixed = (registry.create(name, {**params, "teacher_fix": each}) for each in ("none", fix))
    problem = problems.make(plain, 8)
    outputs = problem.teacher.outputs(plain.needs.of("teacher"))
    right = (outputs["weak"].logits.argmax(1) == problem.target).all()
    assert not right
    by_hand = {
        view: dataclasses.replace(o, logits=function(o.logits, problem.target)) for view, o in outputs.items()
    }
    student = Views(problem.student.outputs(plain.needs.of("student")), plain.needs.of("student"))
    modules = fresh(problem)
    ends = [
        call_loss(method, problem.batch(), student, Views(teacher, plain.needs.of("teacher")), modules).terms
        for method, teacher in ((fixed, outputs), (plain, by_hand), (plain, outputs))
    ]
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def test_it_trains_beside_the_plain_method(lab):
    """Methods of one view and of two, in one cohort with the uncorrected teacher."""
    sets = {name: {"teacher_fix": ["none", "swap", "sort"]} for name in ("kd", "mlkd")}
    results = lab.run(lab.cells("kd", "mlkd", sets=sets))
    assert len(results) == 6
    assert {result.row["status"] for result in results.values()} == {"ok"}
    for name in ("kd", "mlkd"):
        assert not same(results[name].student, results[f"{name} teacher_fix=swap"].student)
