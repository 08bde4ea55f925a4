"""Wrap a timm model so that one forward pass returns everything that methods need.

B images, C classes, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.method import ModelFacts, Needs, Outputs, StageFacts
from kdbench.models.cifar.base import CifarNet
from kdbench.models.flops import architecture, probing, random_images, working_at
from kdbench.models.stages import as_map, stage_indices

# Relative difference of equal fp32 arithmetic in another order of operations, at most.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Maps:
    """The maps of one forward pass, in the precision of the pass. ``before`` is None where it is not available."""

    stages: tuple[Tensor, ...]
    before: tuple[Tensor, ...] | None
    final: Tensor


class Network(nn.Module):
    """A timm model that takes images in 0..1 and normalises them by ``mean`` and ``std``. State dict: ``model.*``.

    Raises KdbenchError for a model that lacks timm's interface or whose classifier is not one linear layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.name = architecture(model)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        for attribute in ("forward_intermediates", "forward_head", "get_classifier", "feature_info"):
            if not hasattr(model, attribute):
                raise KdbenchError(f"model {self.name!r} cannot be used: it has no timm {attribute}")
        classifier = model.get_classifier()  # type: ignore[operator]
        if not isinstance(classifier, nn.Linear | nn.Conv2d):
            raise KdbenchError(f"model {self.name!r} cannot be used: its classifier is not one linear layer")
        self._indices = [] if isinstance(model, CifarNet) else stage_indices(model)
        self._signed: bool | None = None  # whether no stage ends in a ReLU; measured on first use

    def forward(self, images: Tensor, needs: Needs = Needs()) -> Outputs:  # noqa: B008 (frozen)
        """Run images [B, 3, H, W] in 0..1 -> Outputs in fp32; the logits have the same bits whatever ``needs`` is.

        Raises KdbenchError when ``needs.preact`` is set and the model has no such maps.
        """
        if needs.preact and not self._has_preact(images.shape[-1]):
            raise KdbenchError(
                f"model {self.name!r} cannot give maps before their last ReLU: choose one of kdbench's own"
                " networks or a method without `preact`"
            )
        maps = self._maps(images)
        embedding = self._embed(maps.final)
        before = maps.stages if maps.before is None else maps.before
        return Outputs(
            logits=self.classify(embedding),
            embedding=embedding if needs.embedding else None,
            features=self._features(maps).float() if needs.features else None,
            stages=tuple(stage.float() for stage in maps.stages) if needs.stages else None,
            preact=tuple(stage.float() for stage in before) if needs.preact else None,
            classify=self.classify if needs.classifier else None,
        )

    def freeze_features(self) -> None:
        """Leave the last layer alone to be trained, and everything before it in evaluation mode."""
        self.model.eval().requires_grad_(False)
        self.model.get_classifier().train().requires_grad_(True)  # type: ignore[operator]

    def classify(self, embedding: Tensor) -> Tensor:
        """Apply the model's last layer, in fp32 also under autocast: [B, D] -> [B, C]."""
        layer = self.model.get_classifier()  # type: ignore[operator]
        with torch.autocast(embedding.device.type, enabled=False):
            if isinstance(layer, nn.Conv2d):  # 1x1, as in timm's resnetv2
                return layer(embedding.float()[:, :, None, None]).flatten(1)
            return layer(embedding.float())

    def facts(self, size: int) -> ModelFacts:
        """Measure what methods may know of this model at ``size`` px, by one forward pass in evaluation mode.

        The model, its mode and the global random state are unchanged; the BatchNorm terms are copies. Raises
        KdbenchError when the model does not work at this size, or its classifier on its embedding is not its logits.
        """
        with probing(self):
            images = random_images(self, 2, size)
            with working_at(self.model, size):
                maps = self._maps(images)
                embedding = self._embed(maps.final)
                features = self._features(maps).float()
                logits, direct = self.classify(embedding), self.model(self._normalise(images))
        if not _close(logits, direct):
            raise KdbenchError(
                f"model {self.name!r} cannot be used: its logits are not its classifier on its embedding"
            )
        norms = self.model.stage_norms() if isinstance(self.model, CifarNet) else (None,) * len(maps.stages)
        return ModelFacts(
            stages=tuple(map(_stage_facts, maps.stages, norms)),
            feature_channels=features.shape[1],
            feature_size=(features.shape[2], features.shape[3]),
            embedding_size=embedding.shape[1],
            classify=self.classify,
            # of the embedding, not the logits: those of a head that starts at zero are equal for any input
            linear_head=_close(embedding, features.mean((2, 3))),
            has_preact=self._has_preact(size),
        )

    def _normalise(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _maps(self, images: Tensor) -> Maps:
        x = self._normalise(images)
        if isinstance(self.model, CifarNet):
            stages, before = self.model.forward_stages(x)
            return Maps(stages, before, self.model.final_map(stages, before))
        final, stages = self.model.forward_intermediates(x, indices=self._indices, output_fmt="NCHW")  # type: ignore
        return Maps(tuple(stages), None, final)

    def _embed(self, final: Tensor) -> Tensor:
        """Return the input of the last layer, [B, D] in fp32."""
        return self.model.forward_head(final, pre_logits=True).flatten(1).float()  # type: ignore[operator]

    def _features(self, maps: Maps) -> Tensor:
        return as_map(maps.final, maps.stages[-1], self.model.num_features)  # type: ignore[arg-type]

    def _has_preact(self, size: int) -> bool:
        """Whether maps before the last ReLU exist: always in a CifarNet, else where every stage has negative values."""
        if isinstance(self.model, CifarNet):
            return True
        if self._signed is None:
            with probing(self):
                stages = self._maps(random_images(self, 2, size)).stages
            self._signed = all(bool((stage < 0).any()) for stage in stages)
        return self._signed


class Normalised(Network):
    """A network whose images are normalised already."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, (0.0,) * 3, (1.0,) * 3)

    def _normalise(self, images: Tensor) -> Tensor:
        return images


def _stage_facts(stage: Tensor, norm: nn.BatchNorm2d | None) -> StageFacts:
    channels, size = stage.shape[1], (stage.shape[2], stage.shape[3])
    if norm is None:
        return StageFacts(channels, size)
    return StageFacts(channels, size, norm.weight.detach().clone(), norm.bias.detach().clone())


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether the tensors are equal up to rounding."""
    return a.shape == b.shape and bool((a - b).abs().max() <= ROUNDING * b.abs().max())


def to_device(net: Network, device: torch.device) -> Network:
    """Move ``net`` to ``device`` and store its weights as channels_last. Returns ``net``."""
    net.to(device)
    return net.to(memory_format=torch.channels_last)
