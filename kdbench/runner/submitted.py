"""Jobs of a cluster that are submitted and not collected: their notes, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError


def read_notes(folder: Path) -> list[dict[str, Any]]:
    """The notes of jobs that are not collected: job (its number), cells (ids), local."""
    notes = []
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            notes.append(json.loads(path.read_bytes()))
        except FileNotFoundError:  # collected meanwhile
            continue
    return notes


def job_states(folder: Path) -> list[tuple[str, int, str]]:
    """(number, cells, state in Slurm's words) of each job that is not collected; without submitit it is unknown."""
    states = []
    for note in read_notes(folder):
        try:
            submitit = load_submitit()
            job = (submitit.LocalJob if note["local"] else submitit.SlurmJob)(folder, note["job"])
            running = "RUNNING" if note["local"] and is_alive(note["job"]) else job.state
        except (KdbenchError, OSError):
            running = "unknown"
        states.append((note["job"], len(note["cells"]), running))
    return states


def is_alive(pid: str) -> bool:
    """Whether a process of this machine lives."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def load_submitit() -> Any:
    """The package submitit. Raises KdbenchError where it is not installed."""
    try:
        import submitit
    except ImportError:
        raise KdbenchError("the executor slurm needs submitit; type `pip install 'kdbench[slurm]'`") from None
    return submitit
