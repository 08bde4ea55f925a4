"""What is judged, and how a check says no."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from kdbench import registry
from kdbench.contract.training_lab import Lab
from kdbench.method import Method


class CheckFailed(AssertionError):
    """The contract is broken; one sentence."""


def require(holds: bool, sentence: str) -> None:
    """Raise `CheckFailed` with ``sentence`` unless ``holds``."""
    if not holds:
        raise CheckFailed(sentence)


@dataclass(frozen=True)
class Subject:
    """One registered method; ``lab`` trains it, beside those that are judged with it."""

    name: str
    origin: Path
    lab: Lab

    @property
    def cls(self) -> type[Method]:
        """The class; raises KdbenchError where its file fails at import."""
        return registry.get(self.name)

    @property
    def method(self) -> Method:
        """With its defaults."""
        return registry.create(self.name, {})


def run(check, subject: Subject) -> str | None:
    """None when ``subject`` passes ``check``, else why not. What a method raises is a reason, not an accident."""
    try:
        with torch.random.fork_rng([]):
            check(subject)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        return (
            text if isinstance(error, CheckFailed) else f"{type(error).__name__}: {text}".removesuffix(": ")
        )
    return None
