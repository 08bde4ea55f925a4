"""What kdbench adds to click: groups with a default verb, and mistakes explained in one sentence."""

from __future__ import annotations

import difflib
import functools
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from kdbench.errors import KdbenchError, unknown
from kdbench.utils.system import check_system

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "show_default": True}


class _Renamed(click.Command):
    """A command that has lost flags. ``moved`` maps each to the verb that replaces it."""

    def __init__(self, *args: Any, moved: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moved = moved or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for flag, command in self.moved.items():
            if flag in args:
                raise KdbenchError(f"{flag} has become a verb: type `{command}`")
        return super().parse_args(ctx, args)


class Verb(_Renamed):
    """A command that explains an argument too many."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Raises KdbenchError for one too many."""
        ctx.allow_extra_args = True
        extra = super().parse_args(ctx, list(args))
        if extra and not ctx.resilient_parsing:
            raise KdbenchError(_unexpected(ctx, args, extra[0]))
        return extra


class Verbs(_Renamed, click.Group):
    """A group of verbs: shows its help where none is given, and names the nearest right one for a wrong one."""

    command_class = Verb

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, or print the help if there are none."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb. Raises KdbenchError for an unknown one, with the nearest."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            if not ctx.parent and args[0] in ("help", "version"):
                raise KdbenchError(f"type `kdbench --{args[0]}`")
            where = f" of `{ctx.command_path}`" if ctx.parent else ""
            raise unknown("verb", args[0], _shown(self), where)
        return super().resolve_command(ctx, args)


class DefaultVerbs(Verbs):
    """A group whose hidden verb ``default`` takes all arguments that begin with no verb of the group."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, subcommand_metavar=f"{default} | COMMAND [ARGS]...", **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, after the default verb if they do not begin with a verb."""
        known = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        if not known and not ctx.resilient_parsing:
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a verb, or the first argument of the default one."""
        first = next((p for p in self.commands[self.default].params if isinstance(p, click.Argument)), None)
        more = first.shell_complete(ctx, incomplete) if first and not incomplete.startswith("-") else []
        return [*super().shell_complete(ctx, incomplete), *more]


class Main(Verbs):
    """The whole command line: a user's mistake ends it with one sentence on stderr and exit code 1."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run and exit: 0, 1 for bad input, 130 when aborted, or the verb's own code."""
        _replace_unprintable()
        try:
            check_system()
            return super().main(*args, **{"prog_name": "kdbench", **kwargs, "standalone_mode": False})
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)
        except click.ClickException as error:
            click.echo(f"kdbench: {_sentence(error, self)}", err=True)
            sys.exit(1)
        except KdbenchError as error:
            click.echo(f"kdbench: {error}", err=True)
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(0)


verb = functools.partial(click.command, cls=Verb, context_settings=SETTINGS)
verbs = functools.partial(click.group, cls=Verbs, context_settings=SETTINGS)


def walk(command: click.Command, path: str = "kdbench") -> Iterator[tuple[str, click.Command]]:
    """The command and all below it that help shows, each with its full name: ("kdbench bench step", ...)."""
    yield path, command
    for name in _shown(command) if isinstance(command, click.Group) else ():
        yield from walk(command.commands[name], f"{path} {name}")  # type: ignore[attr-defined]


def _shown(group: click.Group) -> list[str]:
    return sorted(name for name, command in group.commands.items() if not command.hidden)


def _options(command: click.Command) -> dict[str, click.Option]:
    return {
        name: option for option in command.params if isinstance(option, click.Option) for name in option.opts
    }


def _sentence(error: click.ClickException, root: click.Group) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx:
        return _no_such_option(error.ctx, error.option_name, root)
    if isinstance(error, click.MissingParameter) and error.ctx and error.param:
        name = (
            error.param.opts[0] if isinstance(error.param, click.Option) else error.param.human_readable_name
        )
        return f"`{error.ctx.command_path}` needs {name}; {_more(error.ctx)}"
    return error.format_message()


def _no_such_option(ctx: click.Context, name: str, root: click.Group) -> str:
    """The nearest right option, else some commands that have this one, else where all are listed."""
    near = difflib.get_close_matches(name, list(_options(ctx.command)), n=1, cutoff=0.7)
    below, anywhere = _with_option(name, ctx.command, ctx.command_path), _with_option(name, root, "kdbench")
    if near:
        hint = f"did you mean {near[0]}?"
    elif below:
        hint = f"type it after a verb that has it: {below}"
    elif anywhere:
        hint = f"it is an option of {anywhere}"
    else:
        hint = _more(ctx)
    return f"`{ctx.command_path}` has no option {name}; {hint}"


def _with_option(name: str, top: click.Command, path: str) -> str:
    """The commands from ``top`` down that have an option, three at most; empty where none has it."""
    paths = [f"`{each}`" for each, command in walk(top, path) if name in _options(command)]
    return ", ".join(paths[:3]) + (" and others" if paths[3:] else "")


def _unexpected(ctx: click.Context, args: list[str], argument: str) -> str:
    """Most often the next value of a list, or the name of a suite without --suite."""
    known, place = _options(ctx.command), args.index(argument)
    before = args[max(place - 2, 0) : place]
    if len(before) == 2 and before[0] in known and "," in (known[before[0]].metavar or ""):
        hint = f"join values by commas: {before[0]} {before[1]},{argument}"
    elif "--suite" in known:
        hint = f"a suite is chosen by --suite {argument}"
    else:
        hint = _more(ctx)
    return f"`{ctx.command_path}` takes no argument {argument!r}; {hint}"


def _more(ctx: click.Context) -> str:
    return f"`{ctx.command_path} --help` lists what it takes"


def _replace_unprintable() -> None:
    """Letters that the output's encoding lacks (the Greek delta in Latin-1) are printed as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
