"""`kdbench report`: leaderboards and figures from results files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError
from kdbench.suites import name_of

DEFAULT = Path("results")  # that it is not there yet is no mistake in the command


@verb("report", short_help="Write leaderboards and figures from the results.")
@options.several_suites("Suites to report on.", show_default="every suite with results")
@options.path(
    "--results",
    "PATH",
    "Folder of results or a .csv file; several are merged. Repeatable.",
    multiple=True,
    default=[DEFAULT],
)
@options.reports
@options.row_choice
@click.option(
    "--baseline", metavar="METHOD", default="kd", help="Method against which differences are computed."
)
@click.option(
    "--format",
    "formats",
    metavar="FORMAT[,FORMAT]",
    callback=options.comma,
    show_default="png; pdf with --style paper",
    help="Formats of the figures: png, svg, pdf.",
)
@click.option(
    "--style",
    type=click.Choice(["screen", "paper"]),
    default="screen",
    help="paper: figures for a paper too, without titles and as wide as a column, in OUT/<suite>/paper/.",
)
@click.option("--print", "show", is_flag=True, help="Print the leaderboard too.")
def report_command(
    suite: list[str] | None,
    results: tuple[Path, ...],
    out: Path,
    baseline: str,
    formats: list[str] | None,
    style: str,
    show: bool,
    **conditions: Any,
) -> None:
    """Turn results/<suite>.csv into a leaderboard and figures in reports/<suite>/."""
    from kdbench.report import write
    from kdbench.report.figures import files
    from kdbench.report.load import suites as suites_with_results
    from kdbench.results.choice import Choice, NothingChosen

    if formats is not None:
        files.checked(formats)
    only = Choice(**{name: value for name, value in conditions.items() if value is not None})
    for place in results:
        if not place.exists() and place != DEFAULT:
            raise KdbenchError(
                f"there is no {place}; --results takes one folder or .csv file and may be repeated"
            )
    names = [name_of(name) for name in suite] if suite else suites_with_results(results)
    if not names:
        where = ", ".join(map(str, results))
        raise KdbenchError(f"there are no results in {where}; type `kdbench run` first")
    failures: list[KdbenchError] = []
    passed_over: list[KdbenchError] = []  # suites without such rows
    for name in names:
        try:
            text = write.write_report(name, results, out, baseline, formats, only, style)
        except KdbenchError as error:
            passed_over.append(error) if isinstance(error, NothingChosen) else failures.append(error)
            continue
        if show:
            click.echo(text)
        click.echo(f"wrote {out / name / 'index.html'} and the files beside it", err=True)
        if style == "paper":
            click.echo(f"figures for a paper: {out / name / 'paper' / 'figures.tex'} shows them", err=True)
    if suite is not None or len(passed_over) == len(names):
        failures += passed_over
    for failure in failures:
        click.echo(f"kdbench: {failure}", err=True)
    sys.exit(1 if failures else 0)
