"""Selection -> cells -> cohorts. A cell is one training run; its id hashes all that can change its number."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdbench import method as method_module
from kdbench import registry
from kdbench.data.views import View
from kdbench.errors import KdbenchError, unknown
from kdbench.hashing import canonical, digest
from kdbench.method import Method, Needs
from kdbench.suites import DataSpec, ModelSpec, Pair, Recipe, Suite, replace_recipe
from kdbench.teacher_cache import STORAGE, outcomes

Sets = Mapping[str, Mapping[str, Sequence[Any]]]  # method -> parameter -> values


@dataclass(frozen=True)
class Cell:
    """One training run, as plain data. ``teacher`` and ``teacher_id`` are None where the method needs no teacher."""

    suite: str
    dataset: DataSpec
    split: str
    split_id: str
    views: Mapping[str, View]
    recipe: Recipe
    recipe_id: str
    teacher: str | None
    teacher_id: str | None
    student: str
    student_model: ModelSpec
    method: str
    params: Mapping[str, Any]
    seed: int
    variant: str = ""
    teacher_cache: str | None = None  # how the teacher's logits were stored, where they come from its cache

    def __str__(self) -> str:
        return f"{self.method} {self.variant}".strip()

    def build_method(self) -> Method:
        """The method with this cell's parameters."""
        return registry.create(self.method, self.params)

    def identity(self) -> dict[str, Any]:
        """Everything that can change the number, and nothing else."""
        method = self.build_method()
        cache = {"teacher_cache": self.teacher_cache} if self.teacher_cache else {}
        return {
            **self._conditions(method.needs),
            "teacher": [self.teacher, self.teacher_id],
            "method": [self.method, method.version, method.params],
            "seed": self.seed,
            **cache,
        }

    def _conditions(self, needs: Needs) -> dict[str, Any]:
        views = self.recipe.views(needs.views)
        return {
            "split": self.split_id,
            "normalise": [self.dataset.mean, self.dataset.std],
            "views": {name: self.views[name].identity() for name in views},
            "recipe": self.recipe.identity(),
            "student": [self.student, self.student_model.arch, dict(self.student_model.args)],
        }

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The setting (see `kdbench.setting`): the identity less method, parameters, teacher and seed.

        ``teacher_logits``: computed or from the cache; only where the method could be trained from the cache.
        """
        needs = self.build_method().needs
        facts = self._conditions(needs)
        if cacheable(needs, self.recipe, self.views):
            facts["teacher_logits"] = self.teacher_cache or "computed"
        return facts

    def setting(self) -> dict[str, str]:
        """The columns of a row that say the setting."""
        return {"setting": digest(self.facts), "facts": canonical(self.facts)}

    @cached_property
    def id(self) -> str:
        return digest(self.identity())


def recipe_id(recipe: Recipe) -> str:
    """The suite's recipe, before pairs change parts of it: rows of different ids never share a table."""
    return digest(recipe.identity())


def select_methods(patterns: Iterable[str] | None, default: Iterable[str]) -> list[str]:
    """Names, ``all`` or globs -> registered names in the order given. Raises KdbenchError for an unknown name."""
    chosen: list[str] = []
    for pattern in patterns if patterns is not None else default:
        if pattern == "all":
            chosen += registry.names()
        elif any(c in pattern for c in "*?["):
            matches = fnmatch.filter(registry.names(), pattern)
            if not matches:
                raise unknown("method", pattern, registry.names())
            chosen += matches
        else:
            registry.get(pattern)
            chosen.append(pattern)
    if not chosen:
        raise KdbenchError(f"no method is chosen; known: {', '.join(registry.names())}")
    return list(dict.fromkeys(chosen))


def select_pairs(suite: Suite, texts: Iterable[str] | None) -> list[Pair]:
    """``teacher:student`` texts -> pairs; those that the suite does not list get its plain recipe."""
    if texts is None:
        return list(suite.pairs)
    known = {str(pair): pair for pair in suite.pairs}
    pairs = []
    for text in dict.fromkeys(texts):
        teacher, colon, student = text.partition(":")
        if not (teacher and colon and student):
            raise KdbenchError(
                f"a pair is written teacher:student, got {text!r}; the suite has {', '.join(known)}"
            )
        pairs.append(known.get(text, Pair(teacher, student)))
    if not pairs:
        raise KdbenchError(f"no pair is chosen; the suite has {', '.join(known)}")
    return pairs


def parse_seeds(text: str) -> list[int]:
    """``0-2`` or ``0,3`` or both -> a list of seeds."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise KdbenchError(f"seeds are written like 0-2 or 0,3, got {text!r}") from None
    if not seeds:
        raise KdbenchError(f"no seed in {text!r}; seeds are written like 0-2 or 0,3")
    return list(dict.fromkeys(seeds))


def parse_sets(texts: Iterable[str], methods: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """``method.key=v1,v2`` texts -> values by method and key, parsed by the field's type.

    Raises KdbenchError for a method that is not selected, an unknown key (naming the fields) or a wrong type.
    """
    sets: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        target, equals, values = text.partition("=")
        name, dot, key = target.partition(".")
        if not (equals and dot and name and key):
            raise KdbenchError(f"--set takes method.parameter=value[,value], got {text!r}")
        if name not in methods:
            registry.get(name)
            raise KdbenchError(
                f"--set {text}: {name} is not among the methods of this run; add it to --methods"
            )
        kind = registry.field_type(name, key)
        parsed = [method_module.parse(kind, value, f"{name}.{key}") for value in values.split(",")]
        values_of = sets.setdefault(name, {}).setdefault(key, [])
        values_of += [value for value in parsed if value not in values_of]
    return sets


def cells(
    suite: Suite,
    methods: Sequence[str],
    pairs: Sequence[Pair],
    seeds: Sequence[int],
    sets: Sets,
    split: str,
    split_id: str,
    teacher_ids: Mapping[str, str | None],
    teacher_cache: bool = False,
) -> list[Cell]:
    """The whole matrix, seeds outermost, each id once.

    Parameters are, in rising order of say: the method's defaults, the suite's, the pair's, the user's ``sets``.
    """
    base_id = recipe_id(suite.recipe)
    matrix: dict[str, Cell] = {}
    for seed, pair, name in itertools.product(seeds, pairs, methods):
        recipe = replace_recipe(suite.recipe, pair.recipe, f"pair {pair}")
        standard = {**suite.params.get(name, {}), **pair.params.get(name, {})}
        choices = sets.get(name, {})
        for values in itertools.product(*choices.values()):
            method = registry.create(name, {**standard, **dict(zip(choices, values, strict=True))})
            usual = registry.create(name, standard)
            set_here = {k: getattr(method, k) for k in choices if getattr(method, k) != getattr(usual, k)}
            cell = Cell(
                suite=suite.name,
                dataset=suite.dataset,
                split=split,
                split_id=split_id,
                views=suite.views,
                recipe=recipe,
                recipe_id=base_id,
                teacher=pair.teacher if method.needs.teacher else None,
                teacher_id=teacher_ids[pair.teacher] if method.needs.teacher else None,
                student=pair.student,
                student_model=suite.model(pair.student),
                method=name,
                params={key: getattr(method, key) for key in method_module.field_types(type(method))},
                seed=seed,
                variant=" ".join(f"{key}={_show(value)}" for key, value in set_here.items()),
                teacher_cache=STORAGE
                if teacher_cache and cacheable(method.needs, recipe, suite.views)
                else None,
            )
            for view in method.needs.views:
                if view not in suite.views:
                    raise KdbenchError(
                        f"{name} needs the view {view!r}; add [views.{view}] to suite {suite.name}"
                    )
            matrix.setdefault(cell.id, cell)
    return list(matrix.values())


def cacheable(needs: Needs, recipe: Recipe, views: Mapping[str, View]) -> bool:
    """Whether a method's teacher outputs are logits alone, of at least one view that has a finite table."""
    if not needs.teacher or needs.of("teacher") != Needs(needs.views, index=needs.index):
        return False
    return any(outcomes(views[name]) for name in recipe.views(needs.views) if name in views)


def check_params(suite: Suite) -> None:
    """Raises KdbenchError where the suite or a pair of it sets a parameter of a method that does not have it."""
    tables = [suite.params, *(pair.params for pair in suite.pairs)]
    for name, params in (item for table in tables for item in table.items()):
        try:
            registry.create(name, params)
        except KdbenchError as error:
            raise KdbenchError(f"suite {suite.name}, params: {error}") from error


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else canonical(value)


Position = tuple[int, int]  # (epoch, step) already done


def cohorts(missing: Iterable[Cell], positions: Mapping[str, Position]) -> list[list[Cell]]:
    """Cells that train side by side: equal data, views, batch size, epochs, precision, teacher, seed and position.

    Cells without a teacher join a cohort that has one, where there is one.
    """
    groups: dict[str, list[Cell]] = {}
    for cell in missing:
        key = canonical(
            [
                cell.split_id,
                [cell.dataset.mean, cell.dataset.std],
                {name: view.identity() for name, view in cell.views.items()},
                [
                    cell.recipe.batch_size,
                    cell.recipe.epochs,
                    cell.recipe.reference_epochs,
                    cell.recipe.precision,
                ],
                [cell.seed, positions.get(cell.id, (0, 0))],
            ]
        )
        groups.setdefault(key, []).append(cell)
    result: list[list[Cell]] = []
    for group in groups.values():
        by_teacher: dict[tuple[str, str] | None, list[Cell]] = {}
        for cell in group:
            by_teacher.setdefault((cell.teacher, cell.teacher_id or "") if cell.teacher else None, []).append(
                cell
            )
        alone = by_teacher.pop(None, [])
        with_teacher = list(by_teacher.values())
        if with_teacher:
            with_teacher[0][:0] = alone
        elif alone:
            with_teacher = [alone]
        result += with_teacher
    return result
