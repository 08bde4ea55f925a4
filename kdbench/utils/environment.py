"""Where and with what a row was computed: columns for the reader, never part of a run's identity."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import timm
import torch

import kdbench
from kdbench.errors import KdbenchError


def _git(*args: str) -> str | None:
    root = Path(kdbench.__file__).resolve().parent.parent
    if not (root / ".git").exists():  # installed into an environment that may lie inside another repository
        return None
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *args],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str:
    """The processor's own name, where the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """As rows name it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"{processor()} (cpu)"


def machine(device: torch.device) -> dict[str, Any]:
    """What bits depend on, beside the code: device, torch, and on a CPU the number of threads."""
    known = {"device": device_name(str(device)), "torch": str(torch.__version__)}
    return known if device.type == "cuda" else {**known, "threads": torch.get_num_threads()}


def collect(device: str) -> dict[str, Any]:
    """kdbench, git_commit, git_dirty, torch, timm, cuda, device, threads, deterministic.

    deterministic: a repetition gives the same bits where device, torch and threads are the same, as it does on a CPU
    (docs/concepts.md says what may differ elsewhere) unless these changed on the way.
    """
    cuda = device.startswith("cuda")
    status = _git("status", "--porcelain", "--", "kdbench", "methods")  # results change with every run
    return {
        "kdbench": kdbench.__version__,
        "git_commit": _git("rev-parse", "--short=12", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "cuda": torch.version.cuda if cuda else None,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "deterministic": not cuda or torch.are_deterministic_algorithms_enabled(),
    }


def choose_devices(text: str) -> tuple[str, ...]:
    """``all`` -> every CUDA device; ``cuda:0,cuda:1`` -> these; else as `choose_device`. Raises KdbenchError."""
    if text == "all":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise KdbenchError("--device all takes every CUDA device, and torch sees none; use cpu or auto")
        return tuple(f"cuda:{number}" for number in range(count))
    devices = tuple(choose_device(part.strip()) for part in text.split(","))
    if len({str(torch.device(device)) for device in devices}) < len(devices):
        raise KdbenchError(f"--device {text} names a device twice; --jobs says how many processes share one")
    if len({torch.device(device).type for device in devices}) > 1:
        raise KdbenchError(
            f"--device {text} mixes a CPU and GPUs, whose numbers differ; name devices of one kind"
        )
    return devices


def unused_gpu(text: str) -> str:
    """That this machine has a GPU which ``auto`` passes over; '' where it has none or the device was chosen."""
    if text != "auto" or torch.cuda.is_available() or not torch.backends.mps.is_available():
        return ""
    return "the GPU of this machine (MPS) is not supported; training on the CPU"


def choose_device(text: str) -> str:
    """``auto`` -> cuda:0 where there is one, else cpu. Raises KdbenchError for a device that is not there."""
    if text == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(text)
    except RuntimeError:
        raise KdbenchError(f"unknown device {text!r}; use auto, cpu or cuda:0") from None
    if kind.type == "cuda" and (
        not torch.cuda.is_available() or (kind.index or 0) >= torch.cuda.device_count()
    ):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise KdbenchError(
            f"there is no device {text}: torch sees {count} CUDA devices; use --device cpu or auto"
        )
    if kind.type == "mps":
        raise KdbenchError("Apple's GPUs (mps) are not supported, CUDA's and CPUs are; use --device cpu")
    if kind.type not in ("cpu", "cuda"):
        raise KdbenchError(f"unknown device {text!r}; use auto, cpu or cuda:0")
    return text
