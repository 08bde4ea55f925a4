"""Options that several verbs share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kdbench.cli import completion
from kdbench.errors import KdbenchError
from kdbench.runner.options import EXECUTORS
from kdbench.utils.graph_kinds import BRANCHES, GRAPHS
from kdbench.utils.method_facts import method_files
from kdbench.utils.text import split_commas

Decorator = Callable[[Any], Any]
SUITE_DEFAULT = "the suite's"  # shown where an option without a value leaves the suite's


def comma(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """``a,b`` -> ``["a", "b"]``."""
    return split_commas(value) if value is not None else None


def names(name: str, metavar: str, help: str, **settings: Any) -> Decorator:
    """An option that takes a comma-separated list."""
    return click.option(name, metavar=metavar, help=help, **{"callback": comma, **settings})


PATHS = {
    "DIR": click.Path(path_type=Path, file_okay=False),
    "FILE": click.Path(path_type=Path, dir_okay=False),
    "PATH": click.Path(path_type=Path),
}


def path(name: str, metavar: str, help: str, **settings: Any) -> Decorator:
    """An option that names a folder (metavar DIR), a file (FILE) or either (PATH)."""
    return click.option(name, metavar=metavar, **{"type": PATHS[metavar], "help": help, **settings})


def _method_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a file where a method's name is needed."""
    if value is not None and value.endswith(".py"):
        raise KdbenchError(f"{value} is a file: load it by --plugins {value} and name the method in it")
    return value


def _method_names(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    patterns = comma(context, parameter, value)
    for pattern in patterns or ():
        _method_name(context, parameter, pattern)
    return patterns


def method_name(name: str = "name", required: bool = True) -> Decorator:
    """An argument that names a method."""
    complete = completion.one(completion.methods)
    return click.argument(name, required=required, callback=_method_name, shell_complete=complete)


def methods(default: str = SUITE_DEFAULT) -> Decorator:
    """Names of methods."""
    return names(
        "--methods",
        "NAME[,NAME]",
        "Methods: names, globs or 'all'.",
        show_default=default,
        callback=_method_names,
        shell_complete=completion.several(completion.methods_or_all),
    )


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def suite(default: str = "digits", help: str = "Name of a suite, or a .toml file.") -> Decorator:
    """The suite to use."""
    return click.option(
        "--suite",
        metavar="SUITE",
        default=default,
        help=help,
        shell_complete=completion.one(completion.suites),
    )


def several_suites(help: str, show_default: str) -> Decorator:
    """Several suites, comma-separated."""
    complete = completion.several(completion.suites)
    return names("--suite", "SUITE[,SUITE]", help, show_default=show_default, shell_complete=complete)


def _folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Refuse a file where a folder of results is needed."""
    from kdbench.results import store

    store.check_folder(value)
    return value


results = path(
    "--results",
    "DIR",
    "Folder of the results files.",
    default="results",
    type=PATHS["PATH"],  # `_folder` explains what a file is good for
    callback=_folder,
)
reports = path("--out", "DIR", "Folder of the reports.", default="reports")
PLUGINS = "plugins"  # where `kdbench new` writes, and every other verb looks


def own_plugins(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """The folder that was typed, else ./plugins where a file of it imports kdbench."""
    here = Path(PLUGINS)
    if value is not None or not here.is_dir():
        return value
    files = filter(Path.is_file, method_files(here))
    return here if any(b"kdbench" in file.read_bytes() for file in files) else None


plugins = path(
    "--plugins",
    "PATH",
    "Method file of your own, or a folder of them.",
    show_default="./plugins, where it has methods",
    callback=own_plugins,
)


def several_pairs(help: str, show_default: str = SUITE_DEFAULT) -> Decorator:
    """Pairs of a teacher and a student."""
    complete = completion.several(completion.pairs)
    return names("--pairs", "TEACHER:STUDENT[,...]", help, show_default=show_default, shell_complete=complete)


pairs = several_pairs("Pairs to train; 'A->B' where a name has a colon.")
data_dir = path(
    "--data-dir", "DIR", "Folder with the data set.", show_default="KDBENCH_DATA, else the download cache"
)
teacher_weights = path(
    "--teacher-weights",
    "DIR",
    "Folder with <teacher>.pth or .safetensors.",
    show_default="none: imported or trained here",
)
split = click.option(
    "--split", type=click.Choice(["test", "holdout"]), default="test", help="Images to evaluate on."
)
device = click.option("--device", metavar="DEVICE", default="auto", help="auto, cpu or cuda:0.")
precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "tf32"]),
    help="Precision of training.",
    show_default=SUITE_DEFAULT,
)
graphs = click.option(
    "--graphs",
    metavar="[KIND]",
    type=click.Choice(GRAPHS),
    is_flag=False,
    flag_value=BRANCHES,
    callback=lambda context, parameter, value: value or "",
    help="Record a cohort's step as one CUDA graph; sequential: one per method (CUDA only).",
    show_default="steps are not recorded",
)


class _Jobs(click.ParamType):
    """A number of processes, or auto."""

    name = "jobs"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> int | str:
        return "auto" if value == "auto" else click.IntRange(1).convert(value, parameter, context)


parallel = click.option(
    "--jobs",
    metavar="N",
    type=_Jobs(),
    default=1,
    help="Processes that train cohorts in parallel; auto: one per GPU, on a CPU one per thread.",
)
ranks = click.option(
    "--ranks",
    metavar="N",
    type=_Jobs(),
    default=1,
    help="Processes that train each cohort together, with a GPU each; auto: one per GPU.",
)
executor = click.option(
    "--executor",
    metavar="NAME",
    type=click.Choice(EXECUTORS),
    help="Where cohorts train: serial (in this process), processes, slurm or ray.",
    show_default="as --jobs and --device ask",
)
slurm = click.option(
    "--slurm",
    metavar="KEY=VALUE[,...]",
    default="",
    help="What each job gets, such as partition=gpu,gpus_per_node=1,timeout_min=600.",
    show_default="none",
)
ray = together(
    click.option(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster: auto, HOST:PORT, or local (one of its own here).",
        show_default="auto",
    ),
    click.option(
        "--gpus-per-job",
        metavar="SHARE",
        type=click.FloatRange(0, 1),
        help="GPU that each job of Ray gets.",
        show_default="1 where the cluster has GPUs",
    ),
    click.option(
        "--cpus-per-job",
        metavar="N",
        type=click.IntRange(1),
        help="CPUs that each job of Ray gets.",
        show_default="1",
    ),
    click.option(
        "--memory-per-job",
        metavar="GIB",
        type=click.FloatRange(0, min_open=True),
        help="Memory that each job of Ray gets.",
        show_default="not reserved",
    ),
)
side_by_side = together(executor, parallel, slurm, ray)
devices = click.option(
    "--device",
    metavar="DEVICE[,DEVICE]",
    default="auto",
    help="auto, cpu, cuda:0; several, or all: a cohort trains on each.",
)
jobs = click.option(
    "--jobs", metavar="N", type=click.IntRange(1), default=1, help="Processes that train cohorts in parallel."
)


def sets(help: str) -> Decorator:
    """Values of methods' parameters."""
    return click.option(
        "--set",
        "sets",
        metavar="METHOD.PARAM=VALUE[,...]",
        multiple=True,
        help=help,
        show_default="none",
    )


row_choice = together(
    names(
        "--methods",
        "NAME[,NAME]",
        "Rows of these methods alone: names or globs.",
        show_default="all",
        shell_complete=completion.several(completion.methods),
    ),
    several_pairs("Rows of these pairs alone: names or globs.", "all"),
    click.option(
        "--epochs", metavar="N", type=int, help="Rows of this many epochs alone.", show_default="all"
    ),
    click.option(
        "--split",
        type=click.Choice(["test", "holdout"]),
        help="Rows of this split alone.",
        show_default="all",
    ),
    click.option(
        "--since", metavar="DATE", help="Rows of runs that started then or later.", show_default="all"
    ),
)
training = together(
    suite(),
    pairs,
    click.option("--seeds", metavar="SEEDS", help="Seeds, such as 0-2 or 0,3.", show_default=SUITE_DEFAULT),
    click.option(
        "--epochs",
        metavar="N",
        type=int,
        help="Number of epochs; the schedule is rescaled.",
        show_default=SUITE_DEFAULT,
    ),
    click.option(
        "--lr",
        metavar="RATE",
        type=click.FloatRange(0, min_open=True),
        help="Learning rate of students; part of the id of each cell.",
        show_default=SUITE_DEFAULT,
    ),
    click.option(
        "--clip",
        metavar="L2",
        type=click.FloatRange(0),
        help="Largest norm of the gradient; 0: no limit.",
        show_default=SUITE_DEFAULT,
    ),
    click.option(
        "--per-class",
        metavar="N",
        type=click.IntRange(1),
        help="Use at most N training and N test images per class.",
        show_default="all",
    ),
    data_dir,
    teacher_weights,
    click.option(
        "--teacher-split",
        is_flag=True,
        help="Use teachers that are trained here on the split's training images alone.",
    ),
    results,
    devices,
    precision,
    plugins,
    side_by_side,
    ranks,
    click.option("--dry-run", is_flag=True, help="Print the plan and train nothing."),
    click.option(
        "--track",
        metavar="NAME[,NAME]",
        default="",
        help="Log every epoch to tensorboard, wandb or mlflow as well.",
        show_default="none",
    ),
    click.option(
        "--max-hours",
        metavar="HOURS",
        type=click.FloatRange(0, min_open=True),
        help="Stop after this many hours and save the state.",
        show_default="no limit",
    ),
)
timing = together(
    click.option(
        "--time-steps",
        is_flag=True,
        help="With --dry-run: time a few steps of each kind of cohort, and print the hours.",
    ),
    click.option(
        "--price",
        metavar="PER_HOUR",
        type=click.FloatRange(0),
        help="With --time-steps: price of an hour of what one job gets, to print the cost.",
        show_default="none",
    ),
)
teaching = together(suite(), data_dir, teacher_weights, split, results)
