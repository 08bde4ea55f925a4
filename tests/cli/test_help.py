"""Help of every command: complete, uncut, within 80 columns, and shown without a heavy import."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from kdbench.bench import command
from kdbench.cli.main import main
from kdbench.cli.verbs import walk
from kdbench.contract import compatibility, one_epoch, whole_schedule
from tests.support.cli_process import ENVIRONMENT

COMMANDS = dict(walk(main))
OPTIONS = [
    pytest.param(option, id=f"{path} {option.opts[0]}")
    for path, each in COMMANDS.items()
    for option in each.params
    if isinstance(option, click.Option)
]
LISTED = [path for path in COMMANDS if path != "kdbench"]
VERBS = """
    ablate bench check export forget methods new published report results run status suites teachers tune
    bench-epoch bench-methods bench-precision bench-scale bench-step
    methods-bibtex methods-list methods-pairs methods-show
    results-upgrade teachers-cache teachers-import teachers-list teachers-remove teachers-train teachers-use
""".split()


def help_of(path: str) -> str:
    result = CliRunner().invoke(main, [*path.split()[1:], "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_walk_meets_every_verb():
    assert sorted(path.replace("kdbench ", "").replace(" ", "-") for path in LISTED) == sorted(VERBS)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_80_columns_and_cuts_nothing(path):
    text = help_of(path)
    assert max(map(len, text.splitlines())) <= 80
    below = text.partition("Commands:")[2]
    assert "..." not in below


@pytest.mark.parametrize("path", COMMANDS)
def test_help_begins_with_a_sentence(path):
    summary = (COMMANDS[path].help or "").partition("\n\n")[0]
    assert summary.endswith(".")


@pytest.mark.parametrize("path", LISTED)
def test_a_listed_verb_has_a_line_of_at_most_60_characters(path):
    line = COMMANDS[path].short_help
    assert line
    assert line.endswith(".")
    assert len(line) <= 60
    assert line in help_of(path.rpartition(" ")[0])


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_has_help_a_metavar_and_its_default(option):
    assert option.help
    assert option.help.endswith(".")
    if option.is_flag:
        return
    assert option.metavar or isinstance(option.type, click.Choice)
    context = click.Context(main, show_default=True)
    _, shown = option.get_help_record(context)
    assert option.required or "default: " in shown


def test_a_path_option_has_no_value_to_guess():
    """A folder or a file: the metavar says which."""
    paths = [o.values[0] for o in OPTIONS if isinstance(o.values[0].type, click.Path)]
    assert len(paths) > 10
    assert {option.metavar for option in paths} == {"DIR", "FILE", "PATH"}


@pytest.mark.parametrize(
    ("path", "option", "values"),
    [
        ("kdbench bench step", "--methods", command.METHODS),
        ("kdbench bench epoch", "--pairs", one_epoch.PAIRS),
        ("kdbench methods pairs", "--suite", compatibility.SUITES),
    ],
)
def test_a_default_that_help_only_describes_is_the_one_used(path, option, values):
    (found,) = [each for each in COMMANDS[path].params if option in each.opts]
    assert found.show_default == ",".join(values)


def test_the_pairs_of_the_whole_schedule_are_those_in_the_help():
    (found,) = [each for each in COMMANDS["kdbench bench epoch"].params if "--whole" in each.opts]
    assert " and ".join(whole_schedule.PAIRS) in found.help


@pytest.mark.parametrize("group", [[], ["bench"], ["teachers"], ["results"]])
def test_a_group_alone_shows_its_help(group):
    result = CliRunner().invoke(main, group)
    assert result.exit_code == 0
    assert result.output == CliRunner().invoke(main, [*group, "--help"]).output


def test_no_help_imports_a_heavy_library(tmp_path):
    code = (
        "import sys; from kdbench.cli.main import main\n"
        "for words in (l.split() for l in sys.argv[1:]):\n"
        "    try: main([*words[1:], '--help'])\n"
        "    except SystemExit as error: assert error.code == 0\n"
        "heavy = ('torch', 'pandas', 'matplotlib', 'numpy', 'scipy', 'tqdm')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: kdbench") == len(COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


# --- shell completion: click's own ---


def complete(*words: str, cwd) -> list[str]:
    """What bash would offer for the last of the words."""
    environment = {
        **ENVIRONMENT,
        "_KDBENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "kdbench"],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def offered(words: list[str]) -> list[str]:
    """What a shell offers for the last of the words; a file stands for its kind."""
    found = ShellComplete(main, {}, "kdbench", "_KDBENCH_COMPLETE").get_completions(words[:-1], words[-1])
    return [item.value if item.type == "plain" else item.type for item in found]


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["re"], ["report", "results"]),
        (["bench", "s"], ["scale", "step"]),
        (["methods", "p"], ["pairs", "pkt"]),
        (["methods", "show", "bic"], ["bickd"]),
        (["suites", "d"], ["digits", "digits-all"]),
        (["run", "--ma"], ["--max-hours"]),
        (["run", "--split", ""], ["test", "holdout"]),
        (["run", "--suite", "tiny"], ["tiny-imagenet"]),
        (["run", "--suite", "own"], ["own.toml"]),
        (["report", "--suite", "digits,imag"], ["digits,imagenet"]),
        (["run", "--methods", "a"], ["all", "ab", "abkd", "at"]),
        (["run", "--methods", "kd,dk"], ["kd,dkd", "kd,dkl"]),
        (["run", "--methods", "dkd,dk"], ["dkd,dkl"]),  # none twice
        (["run", "--methods", "min"], ["mine"]),
        (["run", "--plugins", "nowhere", "--methods", "min"], []),
        (["ablate", "bic"], ["bickd"]),
        (["check", "min"], ["mine"]),
        (["check", "plugins/br"], ["file"]),
        (["run", "--pairs", "digits"], ["digits_teacher:digits_student"]),
        (["run", "--suite", "cifar100", "--pairs", "vgg"], ["vgg13:vgg8", "vgg13:mobilenetv2"]),
        (["run", "--suite", "broken.toml", "--pairs", ""], []),
        (["published", "--methods", "wk"], ["wkd", "wkd-f", "wkd-l+wkd-f"]),
        (["published", "--pairs", "a:b,resnet56:resnet2"], ["a:b,resnet56:resnet20"]),
        (["published", "--dataset", "tiny"], ["tiny-imagenet"]),
        (["export", "ab"], ["abcdef012345"]),
        (["export", "--results", "nowhere", "ab"], []),
        (["forget", "abcdef012345", "01"], ["012345abcdef"]),
    ],
)
def test_values_are_completed(tmp_path, monkeypatch, words, offers):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(
        "from kdbench.registry import register\n\n\n@register\nclass Mine: ...\n"
    )
    (tmp_path / "plugins" / "broken.py").write_text("import kdbench\n(")
    (tmp_path / "own.toml").write_text("")
    (tmp_path / "broken.toml").write_text("(")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "s.csv").write_text("schema,cell_id\n4,abcdef012345\n4,012345abcdef\n")
    assert offered(words) == offers


def test_bash_is_answered(tmp_path):
    assert complete("kdbench", "run", "--suite", "dig", cwd=tmp_path) == ["digits", "digits-all"]
