"""Find a network's weights in a checkpoint, under any keys and prefixes, and say what does not fit.

Training scripts save a state dict alone, under some key, or several of them (the running network, its moving average,
a student and its teacher), and wrappers put a prefix before every name. So each candidate part of a file is compared
with the network by names and shapes, and the part that fits is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdbench.errors import KdbenchError
from kdbench.utils.state_dicts import Place

State = Mapping[str, Tensor]
Problems = list[tuple[str, list[str]]]  # (what is wrong, its keys)

# Attributes that hold the network in a larger module, whose state dict may have other tensors too.
PREFIXES = frozenset(
    "module _orig_mod model net network backbone encoder student teacher ema ema_model model_ema averaged_model "
    "swa_model".split()
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_AVERAGE = re.compile(r"(^|_)ema|ema($|_)|shadow|averaged|(^|_)swa", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """Tensors that may be a network's weights.

    ``place`` has the keys and prefixes above them, ``beside`` the names of tensors that were left out.
    """

    place: Place
    state: State
    beside: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "'" + ".".join(self.place) + "'"

    @property
    def averaged(self) -> bool:
        """Whether a key or prefix names a moving average of the weights."""
        return any(_AVERAGE.search(word) for word in self.place)


def parts(states: Mapping[Place, State]) -> list[Part]:
    """List the candidates of a file: each state dict as it is, and without its prefixes."""
    return [part for place, state in states.items() for part in _without_prefixes(Part(place, state))]


def _without_prefixes(part: Part) -> Iterator[Part]:
    """Yield ``part``, then what is under a prefix that all its names share, and under each of `PREFIXES` otherwise."""
    pending = [part]
    for outer in pending:
        yield outer
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in outer.state.items():
            word, _, rest = key.partition(".")
            groups.setdefault(word, {})[rest] = value
        for word, inner in groups.items():
            if "" not in inner and (len(groups) == 1 or word in PREFIXES):
                others = (key for key in outer.state if not key.startswith(f"{word}."))
                pending.append(Part((*outer.place, word), inner, (*outer.beside, *others)))


def mismatch(own: State, state: State) -> Problems:
    """Compare names and shapes of ``state`` with the state dict ``own`` of a network; [] if they fit."""
    shapes = [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = (
        ("lacks", [k for k in own if k not in state and not is_counter(k)]),
        ("has the unknown", [k for k in state if k not in own]),
        ("differs in shape:", shapes),
    )
    return [(what, keys) for what, keys in problems if keys]


def is_counter(key: str) -> bool:
    """Whether the key is a counter of BatchNorm, which old checkpoints lack and which has no effect in eval mode."""
    return key.endswith("num_batches_tracked")


def smallest_mismatch(own: State, candidates: Iterable[Part]) -> Problems:
    """Return the `mismatch` with the fewest keys among the candidates; [] if one fits."""
    return min((mismatch(own, part.state) for part in candidates), key=count_keys)


def count_keys(problems: Problems) -> int:
    """Count the keys that do not fit."""
    return sum(len(keys) for _, keys in problems)


def describe(problems: Problems) -> str:
    """Put problems into words, with the first three keys of each."""
    return ", ".join(f"{what} {_some(keys)}" for what, keys in problems)


def select_part(own: State, candidates: Sequence[Part], name: str, path: Path) -> tuple[Part, str]:
    """Return the part that holds the weights of ``name``, and a remark on the choice ('' if there was none).

    A moving average is preferred to the weights it averages. Raises KdbenchError if no part fits, if several that fit
    differ, or if their values are invalid (`invalid_values`).
    """
    fit = [part for part in candidates if not mismatch(own, part.state)]
    if not fit:
        problems = describe(smallest_mismatch(own, candidates)[:1])
        raise KdbenchError(f"{path} does not fit {name}: it {problems}; is it another model?")
    rivals = [part for part in fit if part.averaged] or fit
    if invalid := next(filter(None, (invalid_values(own, part.state) for part in rivals)), ""):
        raise KdbenchError(f"{path} holds no weights of {name}: {invalid}")
    if not all(_equal(part.state, rivals[0].state) for part in rivals):
        places = " and ".join(map(str, rivals))
        raise KdbenchError(
            f"{path} holds several weights that fit {name}, {places}; save the ones you mean in a file of their own"
        )
    return rivals[0], _remark(own, rivals[0], candidates, path)


def _remark(own: State, part: Part, candidates: Sequence[Part], path: Path) -> str:
    """Say which weights of the file are used; '' if it holds no others."""
    remarks = []
    if part.averaged:
        remarks.append(f"the averaged (EMA) weights under {part} are used")
    elif averages := [other for other in candidates if other.averaged]:
        reason = describe(smallest_mismatch(own, averages)[:1])
        remarks.append(
            f"the weights under {part} are used; the averaged (EMA) ones do not fit: that part {reason}"
        )
    if part.beside:
        remarks.append(f"of its tensors only those under {part} are used, without {_some(part.beside)}")
    return f"{path}: {'; '.join(remarks)}" if remarks else ""


def invalid_values(own: State, state: State) -> str:
    """Explain why values of ``state``, which fits ``own``, cannot be weights; '' if they can. Skips integers."""
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
