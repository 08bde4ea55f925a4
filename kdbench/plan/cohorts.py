"""Which cells train side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kdbench.plan.cells import Cell
from kdbench.utils.hashing import canonical

Position = tuple[int, int]  # (epoch, step) already done


def form_cohorts(
    missing: Iterable[Cell], positions: Mapping[str, Position], at_least: int = 1
) -> list[list[Cell]]:
    """Cells that train side by side: equal data, views, teacher, seed, position, and parts of the recipe.

    These are batch size, epochs, precision and mixup. Cells without a teacher join a cohort that has one, where there
    is one. at_least: as many cohorts, by halving the largest ones while they have several cells.
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
                    cell.recipe.mixup,
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
    while len(result) < at_least and (largest := max(result, key=len, default=[]))[1:]:
        place, half = result.index(largest), (len(largest) + 1) // 2
        result[place : place + 1] = [largest[:half], largest[half:]]
    return result
