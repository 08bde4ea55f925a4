"""The subject of a check, and how a check fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from kdbench import registry
from kdbench.contract.training_lab import Lab
from kdbench.method import Method


class CheckFailed(AssertionError):
    """A method breaks the contract; the message is one sentence."""


def require(holds: bool, sentence: str) -> None:
    """Raise `CheckFailed` with ``sentence`` unless ``holds``."""
    if not holds:
        raise CheckFailed(sentence)


@dataclass(frozen=True)
class Subject:
    """One registered method; ``lab`` trains it, together with the others that are checked."""

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
    """None when ``subject`` passes ``check``, else the reason; an exception of the method is one."""
    try:
        with torch.random.fork_rng([]):
            check(subject)
    except Exception as error:
        text = (str(error).strip().splitlines() or [""])[0]
        return (
            text if isinstance(error, CheckFailed) else f"{type(error).__name__}: {text}".removesuffix(": ")
        )
    return None
