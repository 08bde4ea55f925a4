"""`kdbench teachers`: list, train, import and cache the teachers of a suite."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import verbs
from kdbench.errors import KdbenchError
from kdbench.utils.text import grid

if TYPE_CHECKING:
    from kdbench.runner.workspace import Workspace


@verbs("teachers", short_help="List, train or import the teachers of a suite.")
def teachers_group() -> None:
    """List, train, import and cache the teachers of a suite."""


@teachers_group.command("list", short_help="Show each teacher's file, hash and accuracy.")
@options.teaching
@options.device
def teachers_list(**chosen: Any) -> None:
    """Show file, hash, accuracy and expected accuracy of each teacher of a suite."""
    click.echo(teachers(chosen))


@teachers_group.command("train", short_help="Train the missing teachers of a suite.")
@options.teaching
@options.devices
@options.side_by_side
@options.several_pairs("Only the teachers of these pairs.", "all pairs")
def teachers_train(**chosen: Any) -> None:
    """Train the missing teachers of a suite, each as a job of its own.

    Type the same command again to resume.
    """
    from kdbench.runner.progress import shown
    from kdbench.runner.run import resolve
    from kdbench.runner.train_teachers import train_teachers

    sys.exit(train_teachers(*resolve(methods=["kd"], **chosen), shown()))


@teachers_group.command("cache", short_help="Compute teacher logits ahead, for later runs.")
@options.teaching
@options.devices
@options.side_by_side
@options.several_pairs("Only the teachers of these pairs.", "all pairs")
@options.precision
@options.path("--teacher-cache", "DIR", "Folder to fill.", required=True)
def teachers_cache(**chosen: Any) -> None:
    """Compute the teachers' logits on every crop and flip of every image.

    Later runs with the same --teacher-cache read them. Type the same command
    again to resume.
    """
    from kdbench.runner.fill_cache import fill_cache
    from kdbench.runner.progress import shown
    from kdbench.runner.run import resolve

    sys.exit(fill_cache(*resolve(methods=["kd"], **chosen), shown()))


@teachers_group.command("import", short_help="Import checkpoints of other code bases and measure them.")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
@options.suite("cifar100", "Suite with the teachers' data set: a name or a .toml file.")
@click.option(
    "--name",
    metavar="NAME",
    help="The suite's name of the one teacher.",
    show_default="recognised by its tensors",
)
@options.data_dir
@options.device
@options.results
def teachers_import(files: tuple[Path, ...], name: str | None, **chosen: Any) -> None:
    """Import FILEs of RepDistiller, mdistiller or timm and measure the teachers.

    Reads .pth, .pt, .safetensors and .tar files.
    """
    from kdbench.runner.import_teachers import import_teachers
    from kdbench.runner.run import resolve

    selection, how = resolve(methods=["ce"], **chosen)
    failures = import_teachers(files, selection, how, say=click.echo, name=name)
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)


@teachers_group.command("use", short_help="Choose among several teachers of one name.")
@click.argument("name")
@click.argument("hash", metavar="HASH")
@options.teaching
@options.device
def teachers_use(name: str, hash: str, **chosen: Any) -> None:
    """Have the teacher NAME be the one whose HASH (or its beginning) `kdbench teachers list` shows."""
    from kdbench.runner import choose_teachers

    click.echo(choose_teachers.use(_workspace(chosen), name, hash))


@teachers_group.command("remove", short_help="Take back an import.")
@click.argument("name")
@click.argument("hash", metavar="[HASH]", default="")
@options.teaching
@options.device
def teachers_remove(name: str, hash: str, **chosen: Any) -> None:
    """Take back the import HASH of the teacher NAME, or the one in use; its file stays."""
    from kdbench.runner import choose_teachers

    click.echo(choose_teachers.remove(_workspace(chosen), name, hash))


def _workspace(chosen: Mapping[str, Any]) -> Workspace:
    from kdbench.runner.progress import to_stderr
    from kdbench.runner.run import resolve
    from kdbench.runner.workspace import open_workspace

    return open_workspace(*resolve(methods=["kd"], **chosen), to_stderr)


def teachers(options: Mapping[str, Any]) -> str:
    """Name, hash, accuracy and expected accuracy of a suite's teachers and of imported ones, each above its file.

    A star marks the one that `run` uses where a name has several.
    """
    from kdbench.runner.teachers import accuracy, listing

    workspace = _workspace(options)
    known = workspace.suite.teachers
    rows: list[Sequence[Any]] = [("", "teacher", "hash", "top-1", "expected")]
    files = []
    for name, teacher, used in listing(workspace):
        expected = f"{known[name].top1:.2f}" if name in known else "–"
        if teacher is None:
            rows.append(("", name, "–", "–", expected))
            files.append("missing: type `kdbench teachers train` or `kdbench teachers import FILE`")
        else:
            rows.append(
                ("*" if used else "", name, teacher.id, f"{accuracy(workspace, teacher):.2f}", expected)
            )
            files.append(str(teacher.path))
    if not files:
        raise KdbenchError(f"suite {workspace.suite.name} has no pair")
    head, *lines = grid(rows).split("\n")
    below = [f"{line}\n     {file}" for line, file in zip(lines, files, strict=True)]
    return "\n".join([head, *below, "* is what `kdbench run` uses"])
