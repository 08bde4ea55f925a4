"""Teachers of a session: trained where missing, measured and announced."""

from __future__ import annotations

import torch

from kdbench import checkpoint, locks
from kdbench.errors import KdbenchError
from kdbench.job import Job, Progress
from kdbench.session import Session, locate_teacher, teacher_cell, trained_path
from kdbench.teachers import measure
from kdbench.train import train_cohort


def ensure_teacher(session: Session, name: str, progress: Progress) -> bool:
    """Have the teacher ``name`` ready, training it if need be; False when that was interrupted (and saved)."""
    if name not in session.teachers:
        cell, path = teacher_cell(session, name), trained_path(session, name)
        with locks.held(session.paths.locks, [cell.id], wait=True):
            if not path.is_file():
                session.say(f"training the teacher {name} for {cell.recipe.epochs} epochs")
                job = Job((cell,), None, session.data_dir, session.paths.work, session.device)
                (result,), stopped = train_cohort(job, progress, session.stop)
                if stopped:
                    return False
                if result.row["status"] != "ok":
                    raise KdbenchError(f"the teacher {name} could not be trained: {result.row['error']}")
                try:
                    checkpoint.save_weights(path, result.student)
                except OSError as error:
                    raise KdbenchError(
                        f"cannot save the teacher to {path} ({error.strerror}); free some space and run again"
                    ) from error
                checkpoint.path_of(session.paths.work, cell.id).unlink(missing_ok=True)
        teacher = locate_teacher(session, name)
        assert teacher is not None
        session.teachers[name] = teacher
    return True


def teacher_accuracy(session: Session, name: str) -> float:
    """Top-1 in percent on the session's split; measured once, then kept under the weights' hash."""
    device = torch.device(session.device)
    return measure(session.teachers[name], session.suite.dataset, session.split, session.paths.work, device)


def announce_teacher(session: Session, name: str) -> None:
    """Say what a teacher reaches, loudly when that is below what the suite expects."""
    teacher = session.teachers[name]
    top1 = session.teacher_top1[name] = teacher_accuracy(session, name)
    session.say(f"teacher {name} ({teacher.id}) reaches {top1:.2f} % top-1 on {session.split_name}")
    if teacher.expected is not None and top1 < teacher.expected - 0.05:
        session.say(
            f"WARNING: the suite expects {teacher.expected:.2f} % of {name}; this teacher is "
            f"{teacher.expected - top1:.2f} points below, so results are not comparable with published ones"
        )
