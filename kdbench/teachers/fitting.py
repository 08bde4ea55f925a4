"""Which tensors of a checkpoint are a network's weights: where they are in it, under which prefix, what differs.

Training scripts save a state dict alone, under some key, or several of them (the running network, its moving average,
a student and its teacher), and wrappers put a word before every name. So every part of a file that could be meant is
compared with the network, by names and shapes: what fits is what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdbench.errors import KdbenchError

State = Mapping[str, Tensor]
Place = tuple[str, ...]
Problems = list[tuple[str, list[str]]]

# Attributes that hold the network in a larger module: their part of a state dict may stand beside other tensors.
WORDS = frozenset(
    "module _orig_mod model net network backbone encoder student teacher ema ema_model model_ema averaged_model "
    "swa_model".split()
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_AVERAGE = re.compile(r"(^|_)ema|ema($|_)|shadow|averaged|(^|_)swa", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """Tensors that may be a network's weights, the keys and prefixes above them, and the names ``beside`` these."""

    place: Place
    state: State
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "'" + ".".join(self.place) + "'"

    @property
    def averaged(self) -> bool:
        """Whether the place is called a moving average of the weights."""
        return any(_AVERAGE.search(word) for word in self.place)


def parts(states: Mapping[Place, State]) -> list[Part]:
    """The state dicts of a file, each as it is and without the words before its names."""
    return [part for place, state in states.items() for part in _peeled(Part(place, state))]


def _peeled(part: Part) -> Iterator[Part]:
    """``part``, then what is under a word that all its names begin with, and under each of `WORDS` else."""
    waiting = [part]
    for outer in waiting:
        yield outer
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in outer.state.items():
            word, _, rest = key.partition(".")
            groups.setdefault(word, {})[rest] = value
        for word, inner in groups.items():
            if "" not in inner and (len(groups) == 1 or word in WORDS):
                others = (key for key in outer.state if not key.startswith(f"{word}."))
                waiting.append(Part((*outer.place, word), inner, (*outer.beside, *others)))


def misfit(own: State, state: State) -> Problems:
    """What keeps ``state`` from being the weights of a model whose state dict is ``own``: (what, keys); [] if nothing.

    Only names and shapes are looked at.
    """
    shapes = [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    found = (
        ("lacks", [k for k in own if k not in state and not k.endswith("num_batches_tracked")]),
        ("has the unknown", [k for k in state if k not in own]),
        ("differs in shape:", shapes),
    )
    return [(what, keys) for what, keys in found if keys]


def nearest(own: State, found: Iterable[Part]) -> Problems:
    """The shortest list of what keeps a part from fitting; [] if one fits."""
    return min((misfit(own, part.state) for part in found), key=size)


def size(problems: Problems) -> int:
    """How many keys are wrong."""
    return sum(len(keys) for _, keys in problems)


def in_words(problems: Problems) -> str:
    """Problems in words, the first three keys of each."""
    return ", ".join(f"{what} {_some(keys)}" for what, keys in problems)


def choose(own: State, found: Sequence[Part], name: str, path: Path) -> tuple[Part, str]:
    """The part that is the weights of ``name``, and a sentence on the choice where there was one ('' where not).

    An average goes before the weights that it is of. Raises KdbenchError where none fits, several that differ do, or
    values are `unsound`.
    """
    fit = [part for part in found if not misfit(own, part.state)]
    if not fit:
        problems = in_words(nearest(own, found)[:1])
        raise KdbenchError(f"{path} does not fit {name}: it {problems}; is it another model?")
    rivals = [part for part in fit if part.averaged] or fit
    if wrong := next(filter(None, (unsound(own, part.state) for part in rivals)), ""):
        raise KdbenchError(f"{path} holds no weights of {name}: {wrong}")
    if not all(_equal(part.state, rivals[0].state) for part in rivals):
        shown = " and ".join(map(str, rivals))
        raise KdbenchError(
            f"{path} holds several weights that fit {name}, {shown}; save those that you mean in a file of their own"
        )
    return rivals[0], _remark(own, rivals[0], found, path)


def _remark(own: State, part: Part, found: Sequence[Part], path: Path) -> str:
    said = []
    if part.averaged:
        said.append(f"the averaged (EMA) weights under {part} are taken")
    elif averages := [other for other in found if other.averaged]:
        why = in_words(nearest(own, averages)[:1])
        said.append(
            f"the weights under {part} are taken; the averaged (EMA) ones do not fit: that part {why}"
        )
    if part.beside:
        said.append(f"of its tensors only those under {part} are taken, without {_some(part.beside)}")
    return f"{path}: {'; '.join(said)}" if said else ""


def unsound(own: State, state: State) -> str:
    """What makes values of ``state``, which fits ``own``, no weights; '' if nothing. Whole numbers are looked past."""
    for key, value in state.items():
        if not own[key].is_floating_point():
            continue
        if value.dtype not in FLOATS or value.layout != torch.strided or value.is_meta:
            kind = (
                "without values" if value.is_meta else f"{value.layout} {value.dtype}".replace("torch.", "")
            )
            return f"{key} is {kind.removeprefix('strided ')}, but weights are dense fp16, bf16, fp32 or fp64"
        if not value.to(own[key].dtype).isfinite().all():
            return f"{key} has values that are not finite"
        if key.endswith("running_var") and (value < 0).any():
            return f"{key} has negative variances"
    return ""


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
