"""What to train, as plain data: a suite, methods, pairs, seeds and values of parameters, each name checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdbench import method as method_module
from kdbench import registry
from kdbench.errors import KdbenchError, unknown
from kdbench.method import Method
from kdbench.plan.settings import Setting
from kdbench.suites import ModelSpec, Pair, Recipe, Suite, replace_recipe
from kdbench.suites.pairs import listed, read_pair
from kdbench.utils.field_values import as_int, coerce, parse
from kdbench.utils.method_facts import matching
from kdbench.utils.text import split_commas

Values = Mapping[str, Sequence[Any]]  # parameter -> values, which multiply
Overrides = Mapping[str, Values]  # of each method
Methods = str | Method | type[Method] | Iterable[str | Method | type[Method]]
OnePair = str | Pair | tuple[str, str]  # "teacher:student", or the two names
Pairs = OnePair | Iterable[OnePair]
Seeds = str | int | Iterable[int]
Sets = str | Iterable[str] | Mapping[str, Any]
SPLITS = ("test", "holdout")


@dataclass(frozen=True)
class Selection:
    """What to train: methods x pairs x seeds of a suite.

    suite: the changes of the command line applied (see `change_suite`). methods: registered names.
    overrides: values of parameters over those of the suite. variants: further ones, each beside ``overrides``.
    settings: of single methods and pairs, beside the matrix. split: the images that are evaluated, test or holdout.
    """

    suite: Suite
    methods: Sequence[str]
    pairs: Sequence[Pair]
    seeds: Sequence[int]
    overrides: Overrides = field(default_factory=dict)
    variants: Sequence[Overrides] = ()
    settings: Sequence[Setting] = ()
    split: str = "test"

    def teachers(self) -> list[str]:
        """The names of the teachers that the methods need."""
        names = {*self.methods, *(setting.method for setting in self.settings)}
        if not any(registry.get(name).needs.teacher for name in names):
            return []
        return list(dict.fromkeys(pair.teacher for pair in self.pairs))


def select(
    suite: Suite,
    methods: Methods | None = None,
    pairs: Pairs | None = None,
    seeds: Seeds | None = None,
    sets: Sets = (),
    variants: Sequence[Overrides] = (),
    settings: Sequence[Setting] = (),
    split: str = "test",
) -> Selection:
    """Check every name and value against the suite and the registry; nothing is opened.

    None: as the suite says. methods: names, globs, ``all``, Method classes, or Method objects with values of their own.
    sets: ``method.parameter=value[,value]``, or a dict of ``method.parameter`` and its values. settings: those of other
    methods and pairs are left out.
    Raises KdbenchError for what does not exist.
    """
    if split not in SPLITS:
        raise unknown("split", str(split), SPLITS)
    check_params(suite)
    names, values = _resolve_methods(methods, suite.methods)
    overrides = parse_sets(sets, names)
    for name in overrides:
        if any(values[name]):
            raise KdbenchError(
                f"both methods and sets give parameters of {name}; give all of them in one of the two"
            )
    base: Overrides = overrides | {name: first for name, (first, *_) in values.items() if first}
    more = [{**base, name: each} for name, (_, *others) in values.items() for each in others]
    chosen = select_pairs(suite, pairs)
    return Selection(
        suite=suite,
        methods=tuple(names),
        pairs=tuple(chosen),
        seeds=tuple(suite.seeds if seeds is None else parse_seeds(seeds)),
        overrides=base,
        variants=(*more, *variants),
        settings=tuple(_select_settings(settings, suite, names, chosen)),
        split=split,
    )


def _select_settings(
    settings: Sequence[Setting], suite: Suite, methods: Sequence[str], pairs: Sequence[Pair]
) -> list[Setting]:
    """Those of ``methods`` and ``pairs``. Raises KdbenchError where there is none, and for a wrong value of one."""
    known = {str(pair) for pair in pairs}
    chosen = [each for each in settings if each.method in methods and each.pair in known]
    if settings and not chosen:
        raise KdbenchError("none of the settings is of a method and a pair of this run; name theirs")
    for each in chosen:
        registry.create(each.method, each.params)
        replace_recipe(suite.recipe, each.recipe, f"the setting of {each.method} on {each.pair}")
    return chosen


def change_suite(suite: Suite, per_class: int | None = None, **recipe: Any) -> Suite:
    """The suite with the changes of a command line; its teachers are still trained by the recipe that it has.

    recipe: fields of it, None where they stay; they are over the recipe of each pair too. per_class: training and test
    images of each class that are used, in place of what the suite says. Raises KdbenchError for a wrong value.
    """
    changes = {key: value for key, value in recipe.items() if value is not None}
    teacher_recipe = replace_recipe(suite.recipe, suite.teacher_recipe, "teacher_recipe")
    data = suite.dataset
    if per_class is not None:
        count = _whole(per_class, "per_class")
        data = dataclasses.replace(
            data, train_per_class=count, test_per_class=count, subset=f"{count} a class"
        )
    return dataclasses.replace(
        suite,
        dataset=data,
        recipe=replace_recipe(suite.recipe, changes, "the options"),
        pairs=tuple(_without(pair, changes) for pair in suite.pairs),
        teacher_recipe=vars(teacher_recipe) if changes else suite.teacher_recipe,
    )


def teacher_recipe(suite: Suite, model: ModelSpec) -> Recipe:
    """The recipe by which a teacher is trained here.

    One that starts from pretrained weights is fine-tuned: by the suite's ``finetune_recipe``, else by a tenth of the
    epochs and of the learning rate of other teachers.
    """
    recipe = replace_recipe(suite.recipe, suite.teacher_recipe, "teacher_recipe")
    if model.weights is None:
        return recipe
    short = {"epochs": max(1, recipe.epochs // 10), "lr": recipe.lr / 10}
    return replace_recipe(recipe, suite.finetune_recipe or short, "finetune_recipe")


def _without(pair: Pair, changes: Iterable[str]) -> Pair:
    """The pair less those fields of its recipe."""
    rest = {key: value for key, value in pair.recipe.items() if key not in changes}
    return dataclasses.replace(pair, recipe=rest)


def _resolve_methods(
    methods: Methods | None, default: Iterable[str]
) -> tuple[list[str], dict[str, list[Values]]]:
    """Names in the order given, and for each the values of its objects; {} where it is given by name or class."""
    chosen: Iterable[Any]
    if methods is None:
        chosen = default
    elif isinstance(methods, str):
        chosen = split_commas(methods)
    elif isinstance(methods, Mapping):
        raise KdbenchError(
            f"methods are a list, got {methods!r}; values of parameters are given by sets={{'method.parameter': value}}"
        )
    else:
        chosen = methods if isinstance(methods, Iterable) else [methods]
    values: dict[str, list[Values]] = {}
    for item in chosen:
        own: Values = {}
        if isinstance(item, str):
            names = select_methods([item], ())
        elif isinstance(item, Method):
            names = [registry.adopt(type(item)).name]
            own = {key: [value] for key, value in method_module.values(item).items()}
        elif isinstance(item, type) and issubclass(item, Method):
            names = [registry.adopt(item).name]
        else:
            raise KdbenchError(f"methods are given by name, or as Method classes or objects; got {item!r}")
        for name in names:
            if own not in values.setdefault(name, []):
                values[name].append(own)
    return select_methods(values, ()), values


def select_methods(patterns: Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """Names, ``all`` or globs -> registered names in the order given. Raises KdbenchError for an unknown name."""
    known, patterns = registry.names(), list(patterns if patterns is not None else default)
    for pattern in patterns:
        if not (matches := matching([pattern], known)):
            raise unknown("method", pattern, known)
        for name in matches:
            registry.get(name)
    if not patterns:
        raise KdbenchError(f"no method is chosen; known: {', '.join(known)}")
    return matching(patterns, known)


def select_pairs(suite: Suite, pairs: Pairs | None) -> list[Pair]:
    """Pairs in any form -> pairs; those that the suite does not list get its plain recipe."""
    if pairs is None:
        return list(suite.pairs)
    known = {str(pair): pair for pair in suite.pairs}
    chosen: dict[str, Pair] = {}
    for item in listed(pairs):
        pair = item if isinstance(item, Pair) else _parse_pair(item, known)
        chosen.setdefault(str(pair), pair)
    if not chosen:
        raise KdbenchError(f"no pair is chosen; the suite has {', '.join(known)}")
    return list(chosen.values())


def _parse_pair(item: Any, known: Mapping[str, Pair]) -> Pair:
    pair = Pair(*read_pair(item, f"; the suite has {', '.join(known)}"))
    return known.get(str(pair), pair)


def parse_seeds(seeds: Seeds) -> list[int]:
    """Seeds as ints, each once: of an int, of ints (a list, a range, numpy's), or of a text like ``0-2`` or ``0,3``.

    Raises KdbenchError for everything else, negative numbers and no seed among them.
    """
    if isinstance(seeds, str):
        chosen = _seeds_of_text(seeds)
    elif isinstance(seeds, Iterable):
        chosen = [_whole(seed, "a seed", low=0) for seed in seeds]
    else:
        chosen = [_whole(seeds, "a seed", low=0)]
    if not chosen:
        raise KdbenchError(f"no seed in {seeds!r}; seeds are written like 0-2 or 0,3")
    return list(dict.fromkeys(chosen))


def _seeds_of_text(text: str) -> list[int]:
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = (text.strip() for text in part.partition("-"))
            if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
                raise ValueError(part)
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise KdbenchError(f"seeds are written like 0-2 or 0,3, got {text!r}") from None
    return seeds


def _whole(value: Any, what: str, low: int = 1) -> int:
    """A whole number as int, numpy's too; a bool is none."""
    number = as_int(value)
    if number is None or number < low:
        raise KdbenchError(f"{what} must be a whole number of at least {low}, got {value!r}")
    return number


def parse_sets(sets: Sets, methods: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Texts ``method.key=v1,v2``, or a dict of ``method.key`` and its values -> values by method and key.

    Texts are parsed by the field's type. Raises KdbenchError for a method that is not selected, an unknown key (naming
    the fields) or a wrong type.
    """
    parsed: dict[str, dict[str, list[Any]]] = {}
    for target, values in _assignments(sets):
        name, dot, key = target.partition(".") if isinstance(target, str) else ("", "", "")
        if not (dot and name and key):
            raise _no_set(target)
        if name not in methods:
            registry.get(name)
            raise KdbenchError(
                f"--set {target}: {name} is not among the methods of this run; add it to --methods"
            )
        kind = registry.field_type(name, key)
        values_of = parsed.setdefault(name, {}).setdefault(key, [])
        for each in _several(values):
            value = (parse if isinstance(each, str) else coerce)(kind, each, f"{name}.{key}")
            if value not in values_of:
                values_of.append(value)
        if not values_of:
            raise _no_set(target)
    return parsed


def _assignments(sets: Sets) -> Iterator[tuple[Any, Any]]:
    """What is set, and to which values."""
    if isinstance(sets, Mapping):
        yield from sets.items()
        return
    for text in [sets] if isinstance(sets, str) else sets:
        target, equals, values = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not equals:
            raise _no_set(text)
        yield target, values


def _several(values: Any) -> Iterable[Any]:
    """One value or several as several; a text is divided at its commas."""
    if isinstance(values, str):
        return values.split(",")
    return values if isinstance(values, Iterable) else [values]


def _no_set(got: Any) -> KdbenchError:
    return KdbenchError(
        f"--set takes method.parameter=value[,value] (in Python sets={{'method.parameter': value or values}}), "
        f"got {got!r}"
    )


def check_params(suite: Suite) -> None:
    """Raises KdbenchError where the suite or a pair of it sets a parameter of a method that does not have it."""
    tables = [suite.params, *(pair.params for pair in suite.pairs)]
    for name, params in (item for table in tables for item in table.items()):
        try:
            registry.create(name, params)
        except KdbenchError as error:
            raise KdbenchError(f"suite {suite.name}, params: {error}") from error
