from math import prod, sqrt

import pytest
import torch

from kdbench.methods import diffkd
from kdbench.methods.diffkd import Diffusion, ddim_step, denoise, draw, noised, signal_shares
from tests.support import golden, naive, pairs
from tests.support.standins import batch

RENAMED = {  # the reference's names -> ours; layers are counted alike
    "ae.encoder": "autoencoder.encode",
    "ae.decoder.0": "autoencoder.decode",
    "trans": "align",
    "model.time_embedding": "denoiser.time",
    "model.pred": "denoiser.predict",
    "noise_adapter.feat": "adapter.features",
    "noise_adapter.pred": "adapter.share",
    "proj": "project",
}


def stored_weights(inputs, modules, place):
    """The stored weights that have a place in ``modules``; biases in front of a BatchNorm have none."""
    known, found = dict(modules.named_parameters()), {}
    for name, value in inputs.items():
        if not name.startswith("w/"):
            continue
        theirs = max((t for t in RENAMED if name[2:].startswith(f"{t}.")), key=len)
        ours = RENAMED[theirs] + name[2:].removeprefix(theirs)
        ours = ours if ours.startswith("autoencoder") else f"{place}.{ours}"
        if ours in known:
            found[ours] = value[: diffkd.TIMES] if "denoiser.time" in ours else value
    assert set(found) == set(known)
    return found


@golden.each("diffkd")
def test_reference(case, dtype, monkeypatch):
    """The stored draws in place of the batch's."""
    inputs, hyper = case.inputs(dtype), case.hyper
    place, maps = hyper["variant"], [inputs[f"{role}_feat"] for role in ("student", "teacher")]
    params = {
        "places": place,
        "temperature": float(hyper["temperature"]),
        "steps": hyper["inference_steps"],
        "latent_channels": hyper["ae_channels"] or 1,
    }
    facts = map(pairs.facts_of, maps)
    modules = pairs.create("diffkd", params).build(pairs.context(maps[1].shape[1], None, *facts))
    pairs.install(modules, stored_weights(inputs, modules, place), dtype)
    draws = (inputs["noise_student"], inputs["noise_teacher"], inputs["timesteps"])
    monkeypatch.setattr(diffkd, "draw", lambda *_: draws)
    given = dict(inputs)
    if place == "logits":
        given |= {
            f"{role}_logits": m.flatten(1) for role, m in zip(("student", "teacher"), maps, strict=True)
        }
    terms, named = pairs.step("diffkd", given, *({"features": m} for m in maps), modules, **params)
    found = {"kd": terms["feature" if place == "features" else "logit"], "diffusion": terms["diffusion"]}
    if place == "features":
        found["reconstruction"] = terms["autoencoder"]
        golden.close(modules["autoencoder"].encode(maps[1]), case.arrays["target_feat"], "target_feat")
    refined = modules[place].refine(maps[0], draws[0], hyper["inference_steps"])
    golden.close(refined, case.arrays["refined"], "refined")
    golden.check(case, {**found, "total": named["total"]}, inputs)


def test_signal_shares_agree_with_the_loop():
    shares = signal_shares()
    assert len(shares) == 1000
    for t in (0, 1, 400, 999):
        expected = prod(1 - (0.0001 + (0.02 - 0.0001) * i / 999) for i in range(t + 1))
        assert shares[t] == pytest.approx(expected, rel=1e-12)


def test_denoising_agrees_with_the_loop():
    """With a made-up prediction; at times 400, 300, 200, 100 and 0."""
    maps, shares = pairs.random_map(2, 1, 1, 2), signal_shares()
    predict = lambda maps, times: maps**2 / 10 + times[:, None, None, None].double() / 1000  # noqa: E731
    expected = []
    for x in maps.flatten().tolist():
        for time in (400, 300, 200, 100, 0):
            noise = x**2 / 10 + time / 1000
            now, then = shares[time], shares[time - 100] if time else 1.0
            x = sqrt(then) * (x - sqrt(1 - now) * noise) / sqrt(now) + sqrt(1 - then) * noise
        expected.append(x)
    assert denoise(maps, predict, 5).flatten().tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_who_knows_the_noise_gets_the_clean_map(steps):
    clean, noise = pairs.random_map(3, 2, 2, 2), pairs.random_map(3, 2, 2, 2, seed=1)
    start = (steps - 1) * (1000 // (2 * steps))
    share = torch.full((3,), signal_shares()[start], dtype=torch.float64)
    torch.testing.assert_close(denoise(noised(clean, noise, share), lambda *_: noise, steps), clean)


def test_one_step_is_two_steps_along_the_same_noise():
    maps, noise = pairs.random_map(4), pairs.random_map(4, seed=1)
    halfway = ddim_step(maps, noise, 0.2, 0.5)
    torch.testing.assert_close(ddim_step(halfway, noise, 0.5, 0.9), ddim_step(maps, noise, 0.2, 0.9))


@pytest.mark.parametrize("place", ["features", "logits"])
def test_the_terms_agree_with_the_loop(place):
    """From what the modules make of the batch's own draws."""
    weights = {f"{name}_weight": 2.0 for name in ("feature", "logit", "diffusion", "autoencoder")}
    problem = pairs.Problem("diffkd", "cnn", "cnn", places=place, **weights)
    student, teacher = problem.views()
    terms, module = problem.terms(), problem.modules[place]
    with torch.no_grad():
        if place == "features":
            own, other = student.features, teacher.features
            target = problem.modules["autoencoder"].encode(other)
        else:
            own, target = (views.logits[:, :, None, None] for views in (student, teacher))
        noise, teacher_noise, times = draw(target, batch([0]).generator)
        refined = module.refine(own, noise, 5)
        predicted = module.denoiser(noised(target, teacher_noise, module.shares[times]), times)

    def error(a, b):
        return naive.mean(
            (x - y) ** 2 for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
        )

    assert terms["diffusion"].item() == pytest.approx(2 * error(predicted, teacher_noise), rel=1e-4)
    if place == "logits":
        rows = refined.flatten(1).tolist(), teacher.logits.tolist()
        assert terms["logit"].item() == pytest.approx(2 * naive.soft_kl(*rows, 1.0), rel=1e-4)
    else:
        assert terms["feature"].item() == pytest.approx(2 * error(refined, target), rel=1e-4)
        decoded = problem.modules["autoencoder"].decode(target)
        assert terms["autoencoder"].item() == pytest.approx(2 * error(decoded, other), rel=1e-4)


def test_a_share_of_one_needs_no_noise():
    """The adapter's share is the student's part of the mixture; the rest is noise."""
    module = Diffusion(3, 4, spatial=True)
    maps, noises = torch.randn(2, 3, 2, 2), torch.randn(2, 2, 4, 2, 2)
    for bias, same in (([60.0, -60.0], True), ([-60.0, 60.0], False)):
        module.adapter.share.bias.data = torch.tensor(bias)
        first, second = (module.refine(maps, noise, 5) for noise in noises)
        assert torch.equal(first, second) == same
    other = module.refine(torch.randn(2, 3, 2, 2), noises[1], 5)
    assert torch.equal(second, other)


def test_both_places_are_the_sum_of_each():
    terms = {place: pairs.Problem("diffkd", places=place).terms() for place in ("both", "features", "logits")}
    assert set(terms["both"]) == set(terms["features"]) | set(terms["logits"])
    assert set(terms["features"]) - set(terms["logits"]) == {"feature", "autoencoder"}
    torch.testing.assert_close(terms["both"]["autoencoder"], terms["features"]["autoencoder"])


def test_only_its_own_term_trains_the_autoencoder():
    problem = pairs.Problem("diffkd")
    terms = problem.terms()
    parameters = list(problem.modules["autoencoder"].parameters())
    reached = {
        name
        for name, value in terms.items()
        if value.requires_grad
        and any(
            g is not None
            for g in torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        )
    }
    assert reached == {"autoencoder"}


def test_the_code_is_at_most_as_wide_as_the_teacher():
    for latent, expected in ((1024, 12), (5, 5)):
        problem = pairs.Problem("diffkd", "cnn", "wide", latent_channels=latent)
        assert problem.modules["autoencoder"].encode[0].out_channels == expected


@pairs.on_pairs
@pytest.mark.parametrize("places", ["both", "features", "logits"])
def test_on_pairs(student, teacher, places):
    pairs.check("diffkd", student, teacher, places=places)
