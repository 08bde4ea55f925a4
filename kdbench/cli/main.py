"""The command line: one verb, one short function. Data on stdout, progress on stderr; torch is imported by the verbs.

Exit codes: 0 done, 1 bad input, 3 some cells failed or are left, 130/143 interrupted (state saved).
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click

from kdbench import __version__
from kdbench.cli import options
from kdbench.errors import KdbenchError


class _Group(click.Group):
    """Usage errors and KdbenchErrors leave with one sentence and exit code 1."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _show_what_can_be_shown()
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)
        except click.ClickException as error:
            click.echo(f"kdbench: {error.format_message()}", err=True)
            sys.exit(1)
        except KdbenchError as error:
            click.echo(f"kdbench: {error}", err=True)
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(0)


def _show_what_can_be_shown() -> None:
    """What the output's encoding lacks (the Greek delta in Latin-1) comes out as "?": a table is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@click.group(
    cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context) -> None:
    """kdbench: knowledge-distillation methods under one harness, one recipe, one table."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@main.command()
@click.option(
    "--methods", callback=options.comma, help="Names, 'all' or globs, comma-separated; default: the suite's."
)
@options.training
@click.option(
    "--set", "sets", multiple=True, help="method.parameter=value[,value]; several values make several cells."
)
@click.option(
    "--workers", type=click.IntRange(0), help="Processes that decode images which stream from disk."
)
@options.split
@options.path("--teacher-cache", "Folder that keeps teachers' logits for later runs.")
@click.option("--graphs", is_flag=True, help="Record each step as a CUDA graph (a CUDA device only).")
@click.option("--force", is_flag=True, help="Train again what is done; rows are added, never replaced.")
def run(dry_run: bool, **chosen: Any) -> None:
    """Train every missing cell of methods x pairs x seeds; type the same command again to resume."""
    from kdbench.runner import run as driver
    from kdbench.runner.describe import describe
    from kdbench.runner.progress import shown, to_stderr

    selection, options = driver.resolve(**chosen)
    if dry_run:
        click.echo(describe(selection, options, to_stderr))
        return
    outcome = driver.execute(selection, options, shown())
    if text := outcome.leaderboard():
        click.echo(text)
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)


@main.command()
@click.option(
    "--suite", callback=options.comma, help="Comma-separated; default: every suite that has results."
)
@options.path(
    "--results",
    "A folder of results or a .csv file; several (repeat it) are merged.",
    multiple=True,
    default=["results"],
    show_default=True,
)
@options.out
@click.option(
    "--baseline", default="kd", show_default=True, help="The method that differences are taken against."
)
@click.option(
    "--format",
    "formats",
    default="png",
    show_default=True,
    callback=options.comma,
    help="Formats of the figures, comma-separated: png, svg, pdf.",
)
@click.option("--print", "show", is_flag=True, help="Print the leaderboard too.")
def report(
    suite: list[str] | None,
    results: tuple[Path, ...],
    out: Path,
    baseline: str,
    formats: list[str],
    show: bool,
) -> None:
    """Turn results/<suite>.csv into leaderboard and figures under reports/<suite>/."""
    from kdbench.report import write
    from kdbench.report.figures import files
    from kdbench.report.load import suites as suites_with_results

    files.checked(formats)
    found = suite if suite is not None else suites_with_results(results)
    if not found:
        where = ", ".join(map(str, results))
        raise KdbenchError(f"there are no results in {where}; type `kdbench run` first")
    failures: list[KdbenchError] = []
    for name in found:
        try:
            text = write.write_report(name, results, out, baseline, formats)
        except KdbenchError as error:
            failures.append(error)
            continue
        if show:
            click.echo(text)
        click.echo(f"wrote {out / name}", err=True)
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)


@main.command()
@options.results
def status(results: Path) -> None:
    """What is done, failed and running, a line a suite."""
    from kdbench.cli import status as overview

    failures: list[KdbenchError] = []
    click.echo(overview.status(results, failures.append))
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)


@main.command()
@click.argument("name", required=False)
@click.option(
    "--bibtex", is_flag=True, help="Print the BibTeX entry (of all methods where no NAME is given)."
)
@click.option("--pairs", is_flag=True, help="Instead, try every method on every pair of --suite.")
@click.option(
    "--suite", callback=options.comma, help="With --pairs: comma-separated; default: those on CIFAR-100."
)
@options.out
@options.plugins
def methods(
    name: str | None, bibtex: bool, pairs: bool, suite: list[str] | None, out: Path, plugins: Path | None
) -> None:
    """List the methods, or show one: its docstring, parameters and file."""
    from kdbench.cli import methods as catalogue

    if pairs:
        from kdbench.contract import compatibility

        text, sound = compatibility.report(suite, plugins, name)
        click.echo(text)
        sys.exit(0 if sound else 3)
    if bibtex:
        click.echo(catalogue.bibtex(name, plugins))
    else:
        click.echo(catalogue.method(name, plugins) if name else catalogue.methods(plugins, out))


@main.command()
@click.argument("name")
@options.path("--plugins", default="plugins", show_default=True)
def new(name: str, plugins: Path) -> None:
    """Write a working plug-in NAME and its test into a folder, to be changed into your own method."""
    from kdbench.cli import new_method

    for file in new_method.create(name, plugins):
        click.echo(file)


@main.command()
@click.argument("name", required=False)
@click.option("--no-timing", is_flag=True, help="Do not time steps for the estimate of hours.")
@options.data_dir
def suites(name: str | None, no_timing: bool, data_dir: Path | None) -> None:
    """List the suites, or show one: pairs, recipe, models, and the hours it would take here."""
    from kdbench.cli import status as overview

    click.echo(overview.suite(name, data_dir) if name else overview.suites_list())
    if name and not no_timing:
        from kdbench.bench import estimate

        click.echo(f"\n{estimate.report(name, data_dir)}")


@main.command()
@click.argument("name", required=False)
@click.option("--cost", is_flag=True, help="Instead, time a step of each beside kd's and keep the table.")
@click.option("--real", is_flag=True, help="Instead, train each for an epoch on real images of CIFAR-100.")
@click.option("--pairs", callback=options.comma, help="--real: teacher:student, comma-separated.")
@click.option("--images", default=1000, show_default=True, help="--real: how many, the same of each class.")
@options.path("--data-dir", "--real: where the data lies; default: KDBENCH_DATA.")
@options.path("--teacher-weights", "--real: folder of <teacher>.pth, if any.")
@options.out
@options.plugins
def check(name: str | None, cost: bool, real: bool, out: Path, plugins: Path | None, **chosen: Any) -> None:
    """Run the contract checks on every method, on one, or on a file of your own."""
    from kdbench import contract
    from kdbench.bench import method_cost as costs

    if cost:
        click.echo(costs.report(name, plugins, out))
        return
    if real:
        from kdbench.contract import one_epoch as epoch

        table, passed = epoch.report(name, plugins, out, **chosen)
    else:
        table, passed = contract.report(name, plugins)
    click.echo(table)
    sys.exit(0 if passed else 3)


@main.command()
@click.argument("cell")
@click.argument("file", type=click.Path(path_type=Path))
@options.results
def export(cell: str, file: Path, results: Path) -> None:
    """Write the student of the finished CELL (an id or its beginning) to FILE (.safetensors or .pth)."""
    from kdbench.runner import export as room

    click.echo(room.export(cell, file, results))


@main.command()
@options.suite("cifar100-quick")
@click.option(
    "--pairs", callback=options.comma, help="teacher:student, comma-separated; default: the suite's first."
)
@click.option("--methods", callback=options.comma, help="Comma-separated; default: ce,kd,dkd,ctkd,bickd.")
@click.option("--steps", type=int, default=20, show_default=True, help="Timed steps of each side.")
@click.option("--batch-size", type=int, help="Default: the suite's.")
@options.device
@click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "tf32"]), help="kdbench's side; default: the suite's."
)
@click.option("--cached", is_flag=True, help="With the teacher's logits already in its cache.")
@click.option("--graphs", is_flag=True, help="Record kdbench's steps as CUDA graphs (a CUDA device only).")
@options.jobs
@options.path("--out", "A .csv file for the table.")
@click.option(
    "--scale", is_flag=True, help="Instead, curves over cells, batch and networks into --out (a folder)."
)
@click.option(
    "--precision-study",
    is_flag=True,
    help="Instead, bf16 beside fp32 in the rows of --results, into --out (a folder).",
)
@options.results
@options.plugins
def bench(scale: bool, precision_study: bool, results: Path, out: Path | None, **chosen: Any) -> None:
    """Time a step here, beside the loop that the field copies, on made-up images; reports go to reports/bench."""
    from kdbench.bench import command

    folder = out or Path("reports/bench")
    if precision_study:
        click.echo(command.study_precision(chosen["suite"], results, folder))
    elif scale:
        wanted = {key: chosen[key] for key in ("suite", "device", "precision", "graphs")}
        click.echo(command.measure_scale(out=folder, **wanted))
    else:
        click.echo(command.compare(out=out, **chosen))


@main.command()
@click.argument("method")
@options.training
@click.option(
    "--set", "sets", multiple=True, help="method.parameter=value[,value] to try too, one parameter at a time."
)
def ablate(method: str, dry_run: bool, **chosen: Any) -> None:
    """Train METHOD without each term, with each alone and with its switches turned, on the holdout split."""
    from kdbench.runner import ablation
    from kdbench.runner.describe import describe
    from kdbench.runner.progress import shown, to_stderr
    from kdbench.runner.run import execute

    selection, options = ablation.resolve(method, **chosen)
    if dry_run:
        click.echo(describe(selection, options, to_stderr))
        return
    outcome = execute(selection, options, shown())
    if text := outcome.leaderboard(baseline=method):
        click.echo(text)
        click.echo("`kdbench report` draws the ablation and the sweeps", err=True)
    for note in outcome.notes:
        click.echo(note, err=True)
    sys.exit(outcome.exit_code)


@main.group()
def teachers() -> None:
    """List, train or import the teachers of a suite."""


@teachers.command("list")
@options.teaching
def teachers_list(**chosen: Any) -> None:
    """Name, hash, accuracy, expected accuracy and file of every teacher of a suite."""
    from kdbench.cli import status as overview

    click.echo(overview.teachers(chosen))


@teachers.command("train")
@options.teaching
def teachers_train(**chosen: Any) -> None:
    """Train every teacher of a suite that is missing; resumable."""
    from kdbench.runner.progress import shown
    from kdbench.runner.run import resolve
    from kdbench.runner.teachers import train_teachers

    sys.exit(train_teachers(*resolve(methods=["kd"], **chosen), shown()))


@teachers.command("cache")
@options.teaching
@click.option("--pairs", callback=options.comma, help="Only the teachers of these pairs.")
@options.precision
@options.path("--teacher-cache", "The folder to fill.", required=True)
def teachers_cache(**chosen: Any) -> None:
    """Compute the teachers' logits on every outcome of crop and flip ahead, for later runs; resumable."""
    from kdbench.runner.fill_cache import fill_cache
    from kdbench.runner.progress import shown
    from kdbench.runner.run import resolve

    sys.exit(fill_cache(*resolve(methods=["kd"], **chosen), shown()))


@teachers.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--suite", default="cifar100", show_default=True, help="Whose data set the teachers know.")
@click.option("--name", help="The suite's name of the teacher; default: recognised by its tensors.")
@options.data_dir
@options.device
@options.results
def teachers_import(files: tuple[Path, ...], name: str | None, **chosen: Any) -> None:
    """Take over checkpoints (.pth, .pt, .tar, .safetensors) of RepDistiller, mdistiller or timm; measure them."""
    from kdbench.runner.import_teachers import import_teachers
    from kdbench.runner.run import resolve

    selection, options = resolve(methods=["ce"], **chosen)
    failures = import_teachers(files, selection, options, say=click.echo, name=name)
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)


@main.group("results")
def results_group() -> None:
    """Look after results files."""


@results_group.command("upgrade")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--suite", help="Suite of the rows, by name or .toml file; default: the name that each row carries."
)
@options.plugins
def results_upgrade(files: tuple[Path, ...], suite: str | None, plugins: Path | None) -> None:
    """Rewrite results FILES of an older kdbench with today's columns; backups are kept."""
    from kdbench.runner import upgrade

    for file in files:
        click.echo(upgrade.upgrade(file, suite, plugins))
