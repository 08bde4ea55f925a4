import pytest
import torch

from kdbench.losses import soft_kl
from kdbench.methods.tekap import perturbed_kl
from tests.support import golden, naive
from tests.support.standins import batch, logits, step


@golden.each("tekap")
def test_reference(case, dtype):
    inputs, hyper = case.inputs(dtype), case.hyper
    student, teacher, noise = inputs["student_logits"], inputs["teacher_logits"], inputs["noise"]
    noisy = perturbed_kl(
        student, teacher, noise, hyper["temperature"], hyper["teacher_share"], hyper["noise_share"]
    )
    plain = soft_kl(student, teacher, hyper["temperature"])
    total = hyper["kd_weight"] * (plain + hyper["noise_weight"] * noisy)
    golden.check(case, {"kl": plain, "total": total}, inputs)


def test_agrees_with_the_loop():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    noise = torch.stack([logits(5, 4, seed, scale=1.0) for seed in (2, 3)])
    expected = sum(
        naive.soft_kl(student.tolist(), (0.9 * teacher + 0.1 * one).tolist(), 4.0) for one in noise
    )
    assert perturbed_kl(student, teacher, noise, 4.0, 0.9, 0.1).item() == pytest.approx(expected, rel=1e-10)


def test_the_noise_is_the_batchs_own():
    student, teacher = logits(5, 4, 0), logits(5, 4, 1)
    terms = step("tekap", [0, 3, 1, 1, 2], (student,), (teacher,))
    noise = torch.randn((3, 5, 4), generator=batch([0]).generator).double()
    expected = 0.9 * 0.8 * perturbed_kl(student, teacher, noise, 4.0, 0.9, 0.1)
    assert terms["noisy"].item() == pytest.approx(expected.item())
    assert terms["kd"].item() == pytest.approx(0.9 * soft_kl(student, teacher, 4.0).item())
