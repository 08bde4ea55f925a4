"""`kdbench report`: leaderboards and figures from results files."""

from __future__ import annotations

from pathlib import Path

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError


@verb("report", short_help="Write leaderboards and figures from the results.")
@options.several_suites("Suites to report on.", default="every suite with results")
@options.path(
    "--results",
    "PATH",
    "Folder of results or a .csv file; several are merged. Repeatable.",
    multiple=True,
    default=["results"],
)
@options.reports
@click.option(
    "--baseline", metavar="METHOD", default="kd", help="Method against which differences are computed."
)
@click.option("--print", "show", is_flag=True, help="Print the leaderboard too.")
def report_command(
    suite: list[str] | None, results: tuple[Path, ...], out: Path, baseline: str, show: bool
) -> None:
    """Turn results/<suite>.csv into a leaderboard and figures in reports/<suite>/."""
    from kdbench.report import write
    from kdbench.report.load import suites as suites_with_results

    names = suite if suite is not None else suites_with_results(results)
    if not names:
        where = ", ".join(map(str, results))
        raise KdbenchError(f"there are no results in {where}; type `kdbench run` first")
    for name in names:
        text = write.write_report(name, results, out, baseline)
        if show:
            click.echo(text)
        click.echo(f"wrote {out / name}", err=True)
