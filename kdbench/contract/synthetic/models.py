"""Synthetic models: maps before their last ReLU, which are leaves of the graph, and a linear head.

B samples, C classes. stages = relu(maps), features = last stage, embedding = its mean over space, logits =
head(embedding). A method that does not call the head gets logits ("scores") that are leaves of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench.method import ModelFacts, Needs, Outputs, StageFacts

SIZES = (8, 4, 2)  # pixels a side of the three stages
# Offered in this order until the method does not skip: channels of the student's and of the teacher's stages.
OFFERS = {"a wider teacher": ((4, 6, 8), (6, 8, 12)), "equal shapes": ((4, 6, 8), (4, 6, 8))}


class Head(nn.Module):
    """logits = weight embedding + bias."""

    def __init__(self, weight: Tensor, bias: Tensor, live: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=live)
        self.bias = nn.Parameter(bias, requires_grad=live)

    def classify(self, embedding: Tensor) -> Tensor:
        """Apply the linear head: embedding [B, D] -> logits [B, C]."""
        return nn.functional.linear(embedding, self.weight.to(embedding.dtype), self.bias.to(embedding.dtype))


@dataclass(frozen=True)
class Side:
    """One model on every view. ``scores``: its logits where they do not come from the head."""

    maps: dict[str, tuple[Tensor, ...]]
    scores: dict[str, Tensor] | None
    head: Head

    def outputs(self, needs: Needs) -> dict[str, Outputs]:
        """Outputs by view, with the fields that ``needs`` declares."""
        return {view: self._on(view, needs) for view in needs.views}

    def _on(self, view: str, needs: Needs) -> Outputs:
        stages = tuple(m.relu() for m in self.maps[view])
        embedding = stages[-1].mean((2, 3))
        return Outputs(
            logits=self.head.classify(embedding) if self.scores is None else self.scores[view],
            embedding=embedding if needs.embedding else None,
            features=stages[-1] if needs.features else None,
            stages=stages if needs.stages else None,
            preact=self.maps[view] if needs.preact else None,
            classify=self.head.classify if needs.classifier else None,
        )

    def leaves(self, view: str) -> list[Tensor]:
        """The tensors that this view's outputs are computed from."""
        return [*self.maps[view], *([] if self.scores is None else [self.scores[view]])]

    def changed(
        self,
        maps: Callable[[Tensor], Tensor] = lambda m: m,
        scores: Callable[[Tensor], Tensor] = lambda s: s,
        head: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda w, b: (w, b),
    ) -> Side:
        """Copy the model with a function applied to every map, every score and the head (weight, bias)."""
        with torch.no_grad():
            live = self.head.weight.requires_grad

            def leaf(value: Tensor) -> Tensor:
                return value.detach().clone(memory_format=torch.preserve_format).requires_grad_(live)

            weight, bias = head(self.head.weight, self.head.bias)
            return Side(
                {view: tuple(leaf(maps(m)) for m in stages) for view, stages in self.maps.items()},
                None if self.scores is None else {v: leaf(scores(s)) for v, s in self.scores.items()},
                Head(weight.detach().clone(), bias.detach().clone(), live),
            )


def copy_of(student: Side) -> Side:
    """A teacher with the student's values."""
    head = Head(student.head.weight.detach().clone(), student.head.bias.detach().clone(), live=False)
    maps = {view: tuple(m.detach().clone() for m in stages) for view, stages in student.maps.items()}
    scores = None if student.scores is None else {v: s.detach().clone() for v, s in student.scores.items()}
    return Side(maps, scores, head)


def generator(purpose: str, seed: int) -> torch.Generator:
    """Return a generator seeded by ``purpose`` and ``seed``."""
    return torch.Generator().manual_seed(sum(map(ord, purpose)) * 1000 + seed)


def make_side(
    role: str,
    channels: tuple[int, ...],
    needs: Needs,
    target: Tensor,
    classes: int,
    seed: int,
    dtype: torch.dtype,
    tied: bool,
) -> Side:
    """Random maps; the head is the same for every seed; of the teacher's own logits every other row is confident."""
    live = role == "student"
    fixed = generator(f"head {role}", 0)
    # rounded, so that a copy that a method makes in fp32 is exact
    weight = (1.5 * 64 * torch.randn(classes, channels[-1], generator=fixed)).round() / 64
    bias = (64 * torch.randn(classes, generator=fixed)).round() / 64
    maps, scores = {}, {}
    for view in needs.views:
        g = generator(f"{role} {view}", seed)
        drawn = [
            torch.randn(len(target), c, s, s, generator=g, dtype=torch.float64)
            for c, s in zip(channels, SIZES, strict=True)
        ]
        maps[view] = tuple((0.3 + m).to(dtype).requires_grad_(live) for m in drawn)
        score = 2 * torch.randn(len(target), classes, generator=g, dtype=torch.float64)
        if role == "teacher":
            score[torch.arange(0, len(target), 2), target[::2]] += 8
        scores[view] = score.to(dtype).requires_grad_(live)
    return Side(maps, None if tied else scores, Head(weight.to(dtype), bias.to(dtype), live))


def make_facts(channels: tuple[int, ...], head: Head, role: str, dtype: torch.dtype) -> ModelFacts:
    """Build the facts of a synthetic model with these channels per stage."""
    g = generator(f"norms {role}", 0)
    stages = tuple(
        StageFacts(
            c, (s, s), (0.5 + torch.rand(c, generator=g)).to(dtype), torch.randn(c, generator=g).to(dtype)
        )
        for c, s in zip(channels, SIZES, strict=True)
    )
    last = channels[-1]
    return ModelFacts(stages, last, (SIZES[-1],) * 2, last, head.classify, linear_head=True, has_preact=True)
