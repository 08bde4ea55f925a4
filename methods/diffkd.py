"""Knowledge diffusion: a diffusion model of the teacher's maps takes the noise out of the student's.

B samples, D channels. A diffusion time t is one of 0..TIMES - 1; at t a map is sqrt(a_t) of itself and sqrt(1 - a_t)
of normal noise. Logits are maps of one pixel.
"""

from collections.abc import Callable
from itertools import accumulate
from math import sqrt
from operator import mul
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kdbench.losses import soft_kl
from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, conv1x1, conv3x3, pool_to_smaller

TIMES = 1000
BETAS = (0.0001, 0.02)  # the noise that the first and the last time add; linear in between


def signal_shares() -> list[float]:
    """a_t of every time: the product of 1 - beta up to t."""
    first, last = BETAS
    return list(accumulate((1 - first - (last - first) * t / (TIMES - 1) for t in range(TIMES)), mul))


def noised(maps: Tensor, noise: Tensor, shares: Tensor) -> Tensor:
    """sqrt(a) maps + sqrt(1 - a) noise; ``maps`` and ``noise`` [B, D, H, W], ``shares`` a [B].

    >>> noised(torch.full((1, 1, 1, 1), 10.0), torch.ones(1, 1, 1, 1), torch.tensor([0.64])).flatten()
    tensor([8.6000])
    """
    share = shares[:, None, None, None].to(maps.dtype)
    return share.sqrt() * maps + (1 - share).sqrt() * noise


def ddim_step(maps: Tensor, noise: Tensor, now: float, then: float) -> Tensor:
    """Take maps with signal share ``now`` to share ``then`` along the predicted ``noise`` (DDIM, eta = 0).

    >>> ddim_step(torch.tensor([8.6]), torch.tensor([1.0]), 0.64, 1.0)
    tensor([10.])
    """
    clean = (maps - sqrt(1 - now) * noise) / sqrt(now)
    return sqrt(then) * clean + sqrt(1 - then) * noise


def denoise(maps: Tensor, predict: Callable[[Tensor, Tensor], Tensor], steps: int) -> Tensor:
    """``steps`` steps of DDIM through the cleaner half of the times; ``predict(maps, times [B])`` is the noise.

    >>> denoise(torch.ones(1, 1, 1, 1), lambda maps, times: torch.zeros_like(maps), 5).flatten()
    tensor([2.2729])
    """
    shares, stride = signal_shares(), TIMES // (2 * steps)
    for time in range((steps - 1) * stride, -1, -stride):
        noise = predict(maps, torch.full((len(maps),), time, device=maps.device))
        maps = ddim_step(maps, noise, shares[time], shares[time - stride] if time else 1.0)
    return maps


class Residual(nn.Module):
    """Bottleneck of 1x1, 3x3 and 1x1 convolutions, 1/``factor`` as wide inside, beside the identity."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        middle = max(1, channels // factor)
        self.block = nn.Sequential(
            *(conv1x1(channels, middle), nn.BatchNorm2d(middle), nn.ReLU()),
            *(conv3x3(middle, middle), nn.BatchNorm2d(middle), nn.ReLU()),
            *(conv1x1(middle, channels), nn.BatchNorm2d(channels)),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.block(maps)


def pointwise(channels: int, factor: int) -> list[nn.Module]:
    """Two 1x1 convolutions, ``factor`` times as wide inside, each with BatchNorm."""
    middle = factor * channels
    return [
        *(conv1x1(channels, middle), nn.BatchNorm2d(middle), nn.ReLU()),
        *(conv1x1(middle, channels), nn.BatchNorm2d(channels)),
    ]


class Denoiser(nn.Module):
    """Predicts the noise in maps of a time; of bottlenecks, or for logits of 1x1 convolutions."""

    def __init__(self, channels: int, spatial: bool) -> None:
        super().__init__()
        self.time = nn.Embedding(TIMES, channels)
        layers: list[nn.Module] = (
            [Residual(channels, 4), Residual(channels, 4), *project(channels, channels)]
            if spatial
            else [*pointwise(channels, 4), *pointwise(channels, 4)[:3], nn.Conv2d(4 * channels, channels, 1)]
        )
        self.predict = nn.Sequential(*layers)

    def forward(self, maps: Tensor, times: Tensor) -> Tensor:
        return self.predict(maps + self.time(times)[:, :, None, None])


class Adapter(nn.Module):
    """Predicts the share [B] that a student's map gets when it is mixed with noise."""

    def __init__(self, channels: int, spatial: bool) -> None:
        super().__init__()
        layers = [Residual(channels, 8)] if spatial else pointwise(channels, 2)
        self.features = nn.Sequential(*layers)
        self.share = nn.Linear(channels, 2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.share(self.features(maps).mean(dim=(2, 3))).softmax(dim=1)[:, 0]


def project(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and BatchNorm."""
    return nn.Sequential(conv1x1(inputs, outputs), nn.BatchNorm2d(outputs))


class Autoencoder(nn.Module):
    """The linear auto-encoder of the teacher's map."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.encode = project(channels, latent)
        self.decode = nn.Conv2d(latent, channels, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the code and the mean squared error of what is decoded from it."""
        code = self.encode(maps)
        return code, mse_loss(self.decode(code), maps)


class Diffusion(nn.Module):
    """All that learns at one place: the student's way to the teacher's channels, denoiser, adapter, projection."""

    shares: Tensor

    def __init__(self, inputs: int, channels: int, spatial: bool) -> None:
        super().__init__()
        self.align = nn.Conv2d(inputs, channels, 1)
        self.denoiser = Denoiser(channels, spatial)
        self.adapter = Adapter(channels, spatial)
        self.project = project(channels, channels)
        self.register_buffer("shares", torch.tensor(signal_shares(), dtype=torch.float64))

    def forward(
        self, student: Tensor, teacher: Tensor, draws: tuple[Tensor, Tensor, Tensor], steps: int
    ) -> tuple[Tensor, Tensor]:
        """Return the student's refined maps and the denoiser's error on the teacher's; ``draws`` as of `draw`."""
        noise, teacher_noise, times = draws
        return self.refine(student, noise, steps), self.noise_error(teacher, teacher_noise, times)

    def refine(self, student: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Mix the student's maps with ``noise`` [B, D, H, W] and denoise them."""
        aligned = self.align(student)
        share = self.adapter(aligned)[:, None, None, None]
        return self.project(denoise(share * aligned + (1 - share) * noise, self.denoiser, steps))

    def noise_error(self, teacher: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Mean squared error of the noise that is predicted in the teacher's maps at ``times`` [B]."""
        return mse_loss(self.denoiser(noised(teacher, noise, self.shares[times]), times), noise)


def draw(like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Normal noise of the shape of ``like`` for the student, the same for the teacher, and the teacher's times [B].

    >>> [drawn.shape for drawn in draw(torch.zeros(2, 3, 4, 4), torch.Generator())]
    [torch.Size([2, 3, 4, 4]), torch.Size([2, 3, 4, 4]), torch.Size([2])]
    """
    student, teacher = (
        torch.randn(like.shape, generator=generator, device=like.device).to(like.dtype) for _ in range(2)
    )
    return student, teacher, torch.randint(TIMES, (len(like),), generator=generator, device=like.device)


@register
class DiffKD(PlusKD):
    """Knowledge diffusion: denoise the student's map and logits by a diffusion model of the teacher's, then match.

    Equation: L = ce_weight CE + kd_weight T^2 KL + feature_weight mean (R(A F^s) - E F^t)^2 + logit_weight
    temperature^2 KL(z^t || R(A z^s)) + autoencoder_weight mean (D E F^t - F^t)^2 + diffusion_weight sum over both
    places of mean (n - e(sqrt(a_t) x + sqrt(1 - a_t) n, t))^2, F the last map, x = E F^t or z^t, n normal noise, t
    a random time, e the denoiser, A, D and E = 1x1 convolutions (E with BatchNorm); R(x) = 1x1 convolution and
    BatchNorm of g x + (1 - g) n after `steps` DDIM steps, g = g(x) learned. No gradient flows into E but from its own
    term. places chooses map, logits or both.

    Deviations: where the maps' sizes differ the larger one is pooled; E has at most as many channels as the teacher's
    map (the release expands a narrower map to 1024); biases in front of a BatchNorm and embeddings of times above 999,
    both without effect, are left out; a_t is computed in double precision.
    """

    paper = Paper(
        title="Knowledge Diffusion for Distillation",
        authors=(
            "Tao Huang",
            "Yuan Zhang",
            "Mingkai Zheng",
            "Shan You",
            "Fei Wang",
            "Chen Qian",
            "Chang Xu",
        ),
        venue="NeurIPS",
        year=2023,
        arxiv="2305.15712",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "feature_weight": log_range(0.1, 10),
        "logit_weight": log_range(0.1, 10),
        "diffusion_weight": log_range(0.1, 10),
        "autoencoder_weight": log_range(0.1, 10),
        "temperature": log_range(0.5, 8.0),
    }

    version: ClassVar[int] = 2  # 1 drew the numbers that the modules or the dropout began with, too
    needs: ClassVar[Needs] = Needs(features=True)
    coupled: ClassVar[bool] = True  # BatchNorm in all modules
    min_batch: ClassVar[int] = 2
    shift_invariant: ClassVar[bool] = False  # a convolution mixes the logits
    partial_gradient: ClassVar[bool] = True  # the code that the student is to match is detached
    weights: ClassVar = {
        "ce_weight": "ce",
        "feature_weight": "feature",
        "logit_weight": "logit",
        "diffusion_weight": "diffusion",
        "autoencoder_weight": "autoencoder",
    }
    positive: ClassVar = ("kd_temperature", "temperature", "steps", "latent_channels")
    ablate: ClassVar = {"places": ("features", "logits")}

    # the release, ImageNet; it has no CIFAR-100 command
    feature_weight: float = 1.0
    logit_weight: float = 1.0
    diffusion_weight: float = 1.0
    autoencoder_weight: float = 1.0
    temperature: float = 1.0
    steps: int = 5
    latent_channels: int = 1024
    places: Literal["both", "features", "logits"] = "both"

    def build(self, context: Context) -> nn.ModuleDict:
        channels, classes = context.teacher.feature_channels, context.num_classes
        latent = min(self.latent_channels, channels)
        modules: dict[str, nn.Module] = {}
        if self.places != "logits":
            modules["autoencoder"] = Autoencoder(channels, latent)
            modules["features"] = Diffusion(context.student.feature_channels, latent, spatial=True)
        if self.places != "features":
            modules["logits"] = Diffusion(classes, classes, spatial=False)
        return nn.ModuleDict(modules)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.ModuleDict) -> Terms:
        terms = self.task_terms(batch, student.logits, teacher.logits)
        errors = []
        if self.places != "logits":
            source, target = pool_to_smaller(student.features, teacher.features)
            code, reconstruction = modules["autoencoder"](target)
            code = code.detach()
            refined, error = modules["features"](source, code, draw(code, batch.generator), self.steps)
            terms["feature"] = self.feature_weight * mse_loss(refined, code)
            terms["autoencoder"] = self.autoencoder_weight * reconstruction
            errors.append(error)
        if self.places != "features":
            own, other = (logits[:, :, None, None] for logits in (student.logits, teacher.logits))
            refined, error = modules["logits"](own, other, draw(other, batch.generator), self.steps)
            scores = refined.flatten(1)
            terms["logit"] = self.logit_weight * soft_kl(scores, teacher.logits, self.temperature)
            errors.append(error)
        terms["diffusion"] = self.diffusion_weight * torch.stack(errors).sum()
        return terms
