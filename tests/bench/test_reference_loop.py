"""The reference loop does the same work as a cohort, and refuses what it has no place for."""

import dataclasses
import itertools

import pytest
import torch
from PIL import Image

from kdbench.bench import reference_loop
from kdbench.bench.timing import Blocks
from kdbench.bench.workload import made_up, work
from kdbench.data.augment import render
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View
from tests.support.timed import PAIR, ask


@pytest.mark.parametrize("method", ["kd", "dkd"])
def test_a_step_of_the_plain_loop_gives_the_cohorts_weights(lab, method):
    """Same initial weights, one batch of all images, no augmentation, fp32: equal up to rounding."""
    suite = dataclasses.replace(lab.suite, views={"weak": View()})
    asked = work(suite, PAIR, ["ce", method], "cpu", batch_size=32)
    with made_up(asked, 1) as job:
        train = load_split(job.cells[0].dataset, "test", job.data_dir).train
        runs = [
            reference_loop.ReferenceLoop(cell, job.teacher, train, torch.device("cpu")) for cell in job.cells
        ]
        before = {k: v.clone() for k, v in runs[1].student.model.state_dict().items()}
        loader = reference_loop.batches(job)
        for run in runs:
            run.block(loader, 1)
        blocks = Blocks(job, 0, 1)
        blocks.run()
        ours = [trainee.net.model.state_dict() for trainee in blocks.cohort.trainees]
    theirs = [run.student.model.state_dict() for run in runs]
    for name, value in theirs[1].items():
        torch.testing.assert_close(value, ours[1][name], rtol=1e-4, atol=2e-6, msg=name)
    weight = next(iter(before))
    moved = (theirs[1][weight] - before[weight]).abs().max()
    assert moved > 1e-3
    assert (theirs[1][weight] - theirs[0][weight]).abs().max() > 0.01 * moved  # and the teacher has a say
    curves = {name: value for _, name, value in blocks.cohort.trainees[1].curves}
    loss, top1, _ = runs[1].log[0]
    assert loss == pytest.approx(curves["loss"], rel=1e-4)
    assert 100 * top1 == pytest.approx(curves["train_top1"])


def test_the_plain_transform_draws_the_views_that_kdbench_draws(lab):
    """Pad 1, mirror: of 4 px images exactly the 9 x 2 images that `render` makes of all draws."""
    view = View(pad=1, flip=True)
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3) + 1
    data = dataclasses.replace(lab.suite.dataset, size=4, mean=(0.0,) * 3, std=(1.0,) * 3)
    ours = {
        render(view, pixels, {"offset": torch.tensor([[y, x]]), "flip": torch.tensor([f])}).numpy().tobytes()
        for y, x, f in itertools.product(range(3), range(3), (False, True))
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transform = reference_loop.transform(view, data)
        image = Image.fromarray(pixels[0].numpy())
        theirs = {transform(image)[None].numpy().tobytes() for _ in range(300)}
    assert len(ours) == 18
    assert theirs == ours


def test_the_plain_loop_refuses_what_it_has_no_place_for(lab):
    with (
        made_up(ask(lab, "mlkd"), 1) as job,
        pytest.raises(KdbenchError, match=r"one view .* leave out mlkd"),
    ):
        reference_loop.ReferenceLoop(job.cells[0], job.teacher, lab.split.train, torch.device("cpu"))


def test_a_known_teacher_is_not_run_again(lab):
    with made_up(ask(lab, "kd", "ce", cached=True), 3) as job:
        known = Blocks(job, 1, 2).run()
    with made_up(ask(lab, "kd", "ce"), 3) as job:
        unknown = Blocks(job, 1, 2).run()
    assert known[0].teacher == 0
    assert unknown[0].teacher > 0
