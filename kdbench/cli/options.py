"""The options of the command line that several verbs share, each said once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Any], Any]


def comma(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """``a,b`` -> ``["a", "b"]``."""
    return [part.strip() for part in value.split(",") if part.strip()] if value is not None else None


def path(name: str, help: str | None = None, **settings: Any) -> Decorator:
    """An option that names a file or a folder."""
    return click.option(name, type=click.Path(path_type=Path), help=help, **settings)


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def suite(default: str = "digits") -> Decorator:
    """Build the option --suite."""
    return click.option("--suite", default=default, show_default=True, help="A suite's name or a .toml file.")


def folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Refuses a file where a folder of results is needed."""
    from kdbench.results import store

    store.check_folder(value)
    return value


results = path("--results", default="results", show_default=True, callback=folder)
out = path("--out", default="reports", show_default=True)
plugins = path("--plugins", "Folder of method files of your own.")
pairs = click.option(
    "--pairs", callback=comma, help="teacher:student, comma-separated; default: the suite's."
)
data_dir = path("--data-dir", "Where the data lies; default: KDBENCH_DATA.")
teacher_weights = path("--teacher-weights", "Folder of <teacher>.pth or .safetensors.")
split = click.option("--split", type=click.Choice(["test", "holdout"]), default="test", show_default=True)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:0.")
precision = click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "tf32"]), help="Default: the suite's."
)
jobs = click.option(
    "--jobs", type=click.IntRange(1), default=1, help="Processes that train cohorts side by side."
)
training = together(
    suite(),
    pairs,
    click.option("--seeds", help="Like 0-2 or 0,3; default: the suite's."),
    click.option("--epochs", type=int, help="Train for so many epochs, the schedule rescaled."),
    click.option("--per-class", type=int, help="Keep so many training and test images of each class."),
    data_dir,
    teacher_weights,
    results,
    device,
    precision,
    plugins,
    jobs,
    click.option("--dry-run", is_flag=True, help="Print the plan and train nothing."),
    click.option("--max-hours", type=float, help="Stop (saved) after so many hours."),
)
teaching = together(suite(), data_dir, teacher_weights, split, device, results)
