"""A selection's cells. A cell is one training run; its id hashes all that can change its numbers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kdbench import method as method_module
from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method, Needs
from kdbench.plan.selection import Selection
from kdbench.plan.settings import Setting
from kdbench.suites import DataSpec, ModelSpec, Pair, Recipe, recipe_of
from kdbench.suites.schema import SGD, View, drawn_as, find_view
from kdbench.teachers.logit_cache import STORAGE, count_outcomes
from kdbench.utils.hashing import canonical, digest


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

    def view(self, name: str) -> View:
        """The view ``name`` of the suite, or one of its views turned."""
        view = find_view(self.views, name)
        assert view, f"{self.method} was planned without its view {name}"
        return view

    def build_method(self) -> Method:
        """The method with this cell's parameters."""
        return registry.create(self.method, self.params)

    def identity(self) -> dict[str, Any]:
        """Everything that can change the number, and nothing else."""
        return {**self._without_seed, "seed": self.seed}

    @cached_property
    def _without_seed(self) -> dict[str, Any]:
        method = self.build_method()
        cache = {"teacher_cache": self.teacher_cache} if self.teacher_cache else {}
        return {
            **self._conditions(method.needs),
            "teacher": [self.teacher, self.teacher_id],
            "method": [self.method, method.version, method.params],
            **cache,
        }

    def _conditions(self, needs: Needs) -> dict[str, Any]:
        views = self.recipe.views(needs.views)
        return {
            "split": self.split_id,
            "normalise": [self.dataset.mean, self.dataset.std],
            "views": {name: self.view(name).identity() for name in views},
            "recipe": self.recipe.identity(),
            "student": [self.student, *self.student_model.identity()],
        }

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The setting (see `kdbench.results.setting`): the identity less method, parameters, teacher and seed.

        ``teacher_logits``: computed or from the cache; only where the method could be trained from the cache.
        """
        needs = self.build_method().needs
        facts = self._conditions(needs)
        if cacheable(needs, self.recipe, self.views):
            facts["teacher_logits"] = self.teacher_cache or "computed"
        return facts

    @cached_property
    def setting(self) -> dict[str, str]:
        """The columns of a row that say the setting."""
        return {"setting": digest(self.facts), "facts": canonical(self.facts)}

    @cached_property
    def id(self) -> str:
        """The cell's id: the hash of its `identity`."""
        return digest(self.identity())

    def with_seed(self, seed: int) -> Cell:
        """The same run from another seed; what does not depend on it is computed once and shared."""
        other = dataclasses.replace(self, seed=seed)
        vars(other).update({name: getattr(self, name) for name in ("_without_seed", "facts", "setting")})
        return other


def plan_cells(
    selection: Selection,
    split_id: str,
    teacher_ids: Mapping[str, str | None],
    teacher_cache: bool = False,
) -> list[Cell]:
    """The whole matrix, seeds outermost, each id once.

    split_id: hash of the split's images. teacher_ids: hash of each teacher's weights, None for one that is not there
    yet. teacher_cache: whether teachers' logits come from a cache where a method can be trained from one.
    """
    matrix: dict[str, Cell] = {}
    for runs in _runs(selection):
        cells = [_cell(selection, *run, split_id, teacher_ids, teacher_cache) for run in runs]
        for seed, cell in itertools.product(selection.seeds, cells):
            seeded = cell.with_seed(seed)
            matrix.setdefault(seeded.id, seeded)
    return list(matrix.values())


def _runs(selection: Selection) -> Iterator[list[tuple[Pair, Method, str]]]:
    """(pair, method, variant) of each run of a seed: the matrix, then the settings of single methods and pairs."""
    for overrides in (selection.overrides, *selection.variants):
        yield [
            (pair, method, variant)
            for pair, name in itertools.product(selection.pairs, selection.methods)
            for method, variant in _configured(selection, pair, name, overrides.get(name, {}))
        ]
    yield [_run_of(selection, setting) for setting in selection.settings]


def _run_of(selection: Selection, setting: Setting) -> tuple[Pair, Method, str]:
    pair = next(pair for pair in selection.pairs if str(pair) == setting.pair)
    values = {key: [value] for key, value in setting.params.items()}
    ((method, _),) = _configured(selection, pair, setting.method, values)
    return dataclasses.replace(pair, recipe={**pair.recipe, **setting.recipe}), method, setting.label


def _configured(
    selection: Selection, pair: Pair, name: str, choices: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[Method, str]]:
    """A method for each combination of values, and in words in what it differs from the suite's.

    In order of precedence, highest first: ``choices``, the pair's parameters, the suite's, the method's defaults.
    """
    standard = selection.suite.params_of(name, pair)
    usual = registry.create(name, standard)
    for values in itertools.product(*choices.values()):
        method = registry.create(name, {**standard, **dict(zip(choices, values, strict=True))})
        changed = {k: getattr(method, k) for k in choices if getattr(method, k) != getattr(usual, k)}
        yield method, " ".join(f"{key}={_show(value)}" for key, value in changed.items())


def _cell(
    selection: Selection,
    pair: Pair,
    method: Method,
    variant: str,
    split_id: str,
    teacher_ids: Mapping[str, str | None],
    teacher_cache: bool,
) -> Cell:
    """The cell of seed 0.

    Raises KdbenchError where the suite lacks a view that the method needs, and for a recipe that it cannot follow.
    """
    suite = selection.suite
    for view in method.needs.views:
        if find_view(suite.views, view) is None:
            raise KdbenchError(
                f"{method.name} needs the view {view!r}; add [views.{drawn_as(view)}] to suite {suite.name}"
            )
    recipe = recipe_of(suite, pair)
    _check_recipe(method, recipe)
    cached = teacher_cache and cacheable(method.needs, recipe, suite.views)
    return Cell(
        suite=suite.name,
        dataset=suite.dataset,
        split=selection.split,
        split_id=split_id,
        views=suite.views,
        recipe=recipe,
        recipe_id=suite.recipe.id,
        teacher=pair.teacher if method.needs.teacher else None,
        teacher_id=teacher_ids[pair.teacher] if method.needs.teacher else None,
        student=pair.student,
        student_model=suite.model(pair.student),
        method=method.name,
        params=method_module.values(method),
        seed=0,
        variant=variant,
        teacher_cache=STORAGE if cached else None,
    )


def _check_recipe(method: Method, recipe: Recipe) -> None:
    """Refuse what of a recipe has no meaning for the method."""
    for offset in filter(None, method_module.momentum_range(method)):
        if recipe.optimizer != SGD:
            raise KdbenchError(
                f"{method.name} trains its terms with momenta of their own, which {recipe.optimizer} does not have; "
                f"use optimizer = {SGD!r}"
            )
        if not 0 <= recipe.momentum + offset < 1:
            raise KdbenchError(
                f"{method.name}: the recipe's momentum {recipe.momentum:g} {offset:+g} is not in the range from 0 to "
                "below 1; use a smaller offset"
            )
    if recipe.mixup and (method.needs.index or method_module.overrides(method, "update")):
        raise KdbenchError(
            f"{method.name} remembers images or their classes, and a blended image has no index and two classes; use "
            "mixup = 0"
        )


def cacheable(needs: Needs, recipe: Recipe, views: Mapping[str, View]) -> bool:
    """Whether a method's teacher outputs are logits alone, of at least one view that has a finite table."""
    if recipe.mixup or not needs.teacher or needs.of("teacher") != Needs(needs.views, index=needs.index):
        return False
    found = (find_view(views, name) for name in recipe.views(needs.views))
    return any(count_outcomes(view) for view in found if view)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else canonical(value)
