"""`kdbench bench`: what training costs on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import verbs


@verbs(
    "bench",
    short_help="Measure what training costs on this machine.",
    moved={"--scale": "kdbench bench scale", "--precision-study": "kdbench bench precision"},
)
def bench_group() -> None:
    """Measure what training costs on this machine."""


folder = options.path("--out", "DIR", "Folder of the table and figure.", default="reports/bench")
timed_precision = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "tf32"]),
    help="Precision of kdbench's loop.",
    show_default=options.SUITE_DEFAULT,
)


@bench_group.command("step", short_help="Compare step time with a conventional KD training loop.")
@options.suite("cifar100-quick")
@options.several_pairs("Pairs to time.", "the suite's first")
@options.methods("ce,kd,dkd,ctkd,bickd")
@click.option(
    "--steps", metavar="N", type=click.IntRange(1), default=20, help="Timed steps of each of the two loops."
)
@click.option(
    "--batch-size",
    metavar="N",
    type=click.IntRange(1),
    help="Images per batch.",
    show_default=options.SUITE_DEFAULT,
)
@options.device
@timed_precision
@click.option("--cached", is_flag=True, help="Read the teacher's logits from its cache.")
@options.graphs
@options.jobs
@options.path("--out", "FILE", "CSV file for the table.", show_default="none: print it only")
@options.plugins
def bench_step(**chosen: Any) -> None:
    """Compare step time with a conventional KD training loop.

    Both train the same methods on synthetic images, alternating between the
    two. The conventional loop reads PIL images, trains in fp32, one method per
    run, and runs the teacher in each.
    """
    from kdbench.bench import command

    click.echo(command.compare(**chosen))


@bench_group.command("scale", short_help="Measure cost against cohort, batch and network size.")
@options.suite("cifar100-quick")
@options.device
@timed_precision
@options.graphs
@folder
def bench_scale(**chosen: Any) -> None:
    """Measure cost against the size of cohort, batch and networks.

    Each point runs in a fresh process, on synthetic images. Start-up times of
    the command line are measured too.
    """
    from kdbench.bench import command

    click.echo(command.measure_scale(**chosen))


@bench_group.command("precision", short_help="Compare bf16 with fp32 accuracy in the results.")
@options.suite("cifar100-quick")
@options.results
@folder
def bench_precision(suite: str, results: Path, out: Path) -> None:
    """Compare the accuracies of runs that were trained in bf16 and in fp32.

    Trains nothing: reads the rows of --results.
    """
    from kdbench.bench import command

    click.echo(command.study_precision(suite, results, out))


@bench_group.command("methods", short_help="Measure each method's step time relative to kd.")
@options.method_name(required=False)
@options.reports
@options.plugins
def bench_methods(name: str | None, out: Path, plugins: Path | None) -> None:
    """Measure the step time of every method, or of method NAME, relative to kd.

    Writes bench/method_cost.csv into --out; `kdbench methods` shows it.
    """
    from kdbench.bench import method_cost

    click.echo(method_cost.report(name, plugins, out))


@bench_group.command("epoch", short_help="Train each method for one epoch on CIFAR-100 images.")
@options.method_name(required=False)
@options.several_pairs("Pairs to train.", "resnet56:resnet20,vgg13:vgg8,resnet56:vit_tiny_d6")
@click.option(
    "--images",
    metavar="N",
    type=int,
    help="Training images, the same number per class.",
    show_default="1000; with --whole 100",
)
@click.option(
    "--whole",
    is_flag=True,
    help="Train all 12 epochs, on resnet56:resnet20 and resnet20:vit_mini, and measure nothing.",
)
@options.data_dir
@options.path(
    "--teacher-weights",
    "DIR",
    "Folder with <teacher>.pth or .safetensors.",
    show_default="none: trained here",
)
@options.reports
@options.plugins
def bench_epoch(
    name: str | None, out: Path, plugins: Path | None, whole: bool, images: int | None, **chosen: Any
) -> None:
    """Train every method, or method NAME, for one epoch on images of CIFAR-100.

    Measures time and memory relative to kd, each method alone in a process,
    and writes bench/real_images.csv and .md into --out. With --whole, says
    which methods train through the whole schedule, and why others do not.
    """
    from kdbench.contract import one_epoch, whole_schedule

    counted = chosen if images is None else {**chosen, "images": images}
    if whole:
        text, passed = whole_schedule.report(name, plugins, **counted)
    else:
        text, passed = one_epoch.report(name, plugins, out, **counted)
    click.echo(text)
    sys.exit(0 if passed else 3)
