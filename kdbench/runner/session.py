"""One selection of the command line, resolved: suite, data, teachers that are there, all cells, what is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from kdbench import models, registry, suites
from kdbench.data.dataset import Dataset, Split, split_dataset
from kdbench.data.loading import load_data
from kdbench.data.streaming import count_duplicates
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.cohorts import Position
from kdbench.plan.selection import Overrides as Sets
from kdbench.plan.selection import Selection, check_params, parse_sets, select_methods, select_pairs
from kdbench.results import store
from kdbench.runner.progress import to_stderr
from kdbench.suites import Pair, Suite, replace_recipe
from kdbench.teachers import catalog
from kdbench.teachers.weights import Teacher, find_file, open_teacher
from kdbench.train.checkpoint import resumable
from kdbench.utils.environment import choose_device
from kdbench.utils.precision import check as check_fast_paths
from kdbench.utils.status import DONE

Say = Callable[[str], None]


@dataclass(frozen=True)
class Paths:
    """Where a suite's results lie under one results folder."""

    results: Path
    suite: str

    @property
    def rows(self) -> Path:
        """The rows, a CSV file."""
        return self.results / f"{self.suite}.csv"

    @property
    def curves(self) -> Path:
        """The training curves, a CSV file."""
        return self.results / f"{self.suite}.curves.csv"

    @property
    def details(self) -> Path:
        """The folder of predictions' details."""
        return self.results / f"{self.suite}.details"

    @property
    def work(self) -> Path:
        """The folder of checkpoints, teachers and locks."""
        return self.results / ".work"

    @property
    def locks(self) -> Path:
        """The folder of locks."""
        return self.work / "locks"

    @property
    def students(self) -> Path:
        """The folder of trained students' weights."""
        return self.work / "students"


@dataclass
class Session:
    """One selection, resolved: the suite, its data, its teachers and all cells.

    ``test_in_train``: images measured on that are in the training images too; None: not counted (see
    `data.count_duplicates`).
    """

    suite: Suite  # as the command line changed it
    written: Suite  # as it stands in its file: teachers are trained by it
    paths: Paths
    data_id: str  # of the data set, however much of it is used
    split: Split
    device: str
    data_dir: Path | None
    plugins: Path | None
    methods: list[str]
    pairs: list[Pair]
    seeds: list[int]
    sets: Sets
    split_name: str
    weights: Path | None
    say: Say
    stop: Callable[[], bool]
    also: Sequence[Sets] = ()
    teacher_cache: Path | None = None
    graphs: bool = False
    test_in_train: int | None = None
    teachers: dict[str, Teacher] = field(default_factory=dict)
    teacher_top1: dict[str, float] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """The matrix; a teacher that is not there yet has no id, and its cells no result."""
        ids = {
            pair.teacher: self.teachers[pair.teacher].id if pair.teacher in self.teachers else None
            for pair in self.pairs
        }
        selection = Selection(
            self.suite, self.methods, self.pairs, self.seeds, self.sets, self.also, self.split_name
        )
        return plan_cells(selection, self.split.id, ids, self.teacher_cache is not None)

    def needed_teachers(self) -> list[str]:
        """List the teachers of the pairs; none if no method needs one."""
        if not any(registry.get(name).needs.teacher for name in self.methods):
            return []
        return list(dict.fromkeys(pair.teacher for pair in self.pairs))


def prepare(
    suite: str = "digits",
    methods: Sequence[str] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    sets: Sequence[str] = (),
    also: Sequence[Sets] = (),
    epochs: int | None = None,
    per_class: int | None = None,
    workers: int | None = None,
    split: str = "test",
    data_dir: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    teacher_cache: str | Path | None = None,
    results: str | Path = "results",
    device: str = "auto",
    graphs: bool = False,
    precision: str | None = None,
    plugins: str | Path | None = None,
    say: Say | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Session:
    """Resolve a selection, checking everything that can be checked before training. Raises KdbenchError.

    ``also``: further values of parameters, each set beside ``sets``, whose values multiply.
    ``per_class`` keeps only so many training and test images of each class, in place of what the suite says;
    ``workers`` processes decode images that stream.
    """
    store.check_folder(Path(results))
    plugin_dir = Path(plugins) if plugins else None
    registry.load(plugin_dir)
    spec = suites.load(suite)
    changes = {k: v for k, v in {"epochs": epochs, "precision": precision}.items() if v is not None}
    check_params(spec)
    asked = dataclasses.replace(
        spec,
        recipe=replace_recipe(spec.recipe, changes, "the command line"),
        pairs=tuple(_without(pair, changes) for pair in spec.pairs),
    )
    names = select_methods(methods, spec.methods)
    chosen = select_pairs(asked, pairs)
    parsed = parse_sets(sets, names)
    where = Path(data_dir) if data_dir else None
    wanted = spec.dataset
    if per_class is not None:
        wanted = dataclasses.replace(
            wanted, train_per_class=per_class, test_per_class=per_class, subset=f"{per_class} a class"
        )
    if workers is not None:
        wanted = dataclasses.replace(wanted, workers=workers)
    dataset, measured = load_data(wanted, where)
    spec, asked = (dataclasses.replace(each, dataset=measured) for each in (spec, asked))
    place = choose_device(device)
    for recipe in (asked.recipe, *(replace_recipe(asked.recipe, p.recipe, str(p)) for p in chosen)):
        check_fast_paths(recipe.precision, graphs, place)
    parts = split_dataset(dataset, split, measured.holdout)
    session = Session(
        suite=asked,
        written=spec,
        paths=Paths(Path(results), spec.name),
        data_id=dataset.whole,
        split=parts,
        device=place,
        graphs=graphs,
        data_dir=where,
        plugins=plugin_dir,
        methods=names,
        pairs=chosen,
        seeds=list(seeds) if seeds is not None else list(spec.seeds),
        sets=parsed,
        also=also,
        split_name=split,
        weights=Path(teacher_weights) if teacher_weights else None,
        teacher_cache=Path(teacher_cache) if teacher_cache else None,
        say=say or to_stderr,
        stop=stop,
        test_in_train=count_duplicates(dataset, parts),
    )
    for line in data_lines(dataset, session):
        session.say(line)
    for pair in chosen:  # a misspelt model or a wrong argument fails here, not after an hour
        for name in (pair.teacher, pair.student):
            _check_model(asked, name)
    store.read(session.paths.rows)
    for name in session.needed_teachers():
        teacher = locate_teacher(session, name)
        if teacher:
            session.teachers[name] = teacher
        if remark := _remark(session, name):
            session.say(remark)
    return session


def data_lines(dataset: Dataset, session: Session) -> list[str]:
    """What the user should know of the data: how its files were read, and whether the test is in the training."""
    if not session.test_in_train:
        return list(dataset.notes)
    count, whole = session.test_in_train, len(session.split.evaluation)
    how = "byte for byte" if session.suite.dataset.stream else "pixel for pixel"
    return [
        *dataset.notes,
        f"WARNING: {count:,} of the {whole:,} images that are measured on are in train too, {how}; accuracies on "
        "them say nothing of new images",
    ]


def _without(pair: Pair, changes: Iterable[str]) -> Pair:
    """The pair less those recipe fields that the user typed."""
    kept = {key: value for key, value in pair.recipe.items() if key not in changes}
    return dataclasses.replace(pair, recipe=kept)


def _check_model(suite: Suite, name: str) -> None:

    model = suite.model(name)
    models.create(model.arch, suite.dataset.classes, **model.args)


# --- teachers ---


def teacher_cell(session: Session, name: str) -> Cell:
    """The training run that makes a teacher: plain cross-entropy by the suite's teacher recipe, seed 0."""
    recipe = replace_recipe(session.written.recipe, session.written.teacher_recipe, "teacher_recipe")
    suite = dataclasses.replace(session.written, recipe=recipe)
    pair = Pair(name, name)
    selection = Selection(suite, ["ce"], [pair], [0], split=session.split_name)
    return plan_cells(selection, session.split.id, {name: None})[0]


def trained_path(session: Session, name: str) -> Path:
    """Return where the weights of a teacher that is trained here are saved."""
    return catalog.folder(session.paths.work) / f"{name}-{teacher_cell(session, name).id}.safetensors"


def pretrained_path(session: Session, name: str) -> Path | None:
    """Where the weights that timm has for a teacher are kept; None where the suite names none."""
    tag = session.suite.teachers[name].pretrained if name in session.suite.teachers else None
    return catalog.folder(session.paths.work) / f"{name}-{tag}.safetensors" if tag else None


def locate_teacher(session: Session, name: str) -> Teacher | None:
    """The teacher that is there, None when it must be trained or fetched.

    In falling order of say: --teacher-weights, the last one imported, timm's weights where the suite names them, else
    the one trained here.
    """
    dataset, model = session.suite.dataset, session.suite.model(name)
    if session.weights:
        path = find_file(name, session.weights)
    else:
        own = pretrained_path(session, name) or trained_path(session, name)
        path = catalog.assigned_file(session.paths.work, dataset.name, name, model, session.data_id) or own
    if not path.is_file():
        return None
    expected = session.suite.teachers[name].top1 if name in session.suite.teachers else None
    return open_teacher(name, model, path, dataset, expected)


def _remark(session: Session, name: str) -> str:
    """What `kdbench.teachers.catalog.data_remark` says, where the user did not give the weights."""
    model, data = session.suite.model(name), session.suite.dataset
    return (
        ""
        if session.weights
        else catalog.data_remark(session.paths.work, data.name, name, model, session.data_id)
    )


def teacher_lines(session: Session) -> list[str]:
    """For every teacher that the selection needs: which one it is, or how it is to be had."""
    lines = []
    for name in session.needed_teachers():
        teacher = session.teachers.get(name)
        if teacher is not None:
            lines.append(f"teacher {name}: {teacher.id}, {teacher.path}")
        else:
            way = "fetch from timm" if pretrained_path(session, name) else "train"
            lines.append(f"teacher {name}: to {way} first")
    return lines


# --- what is done ---


def records_of(session: Session, cells: Iterable[Cell]) -> pd.DataFrame:
    """Read the records of these cells."""
    records = store.records(store.read(session.paths.rows))
    return records[records["cell_id"].isin([cell.id for cell in cells])]


def done_ids(records: pd.DataFrame) -> set[str]:
    """Ids of the cells that need not be trained again."""
    return set(records.loc[records["status"].isin(DONE), "cell_id"])


def positions(work: Path, cells: Iterable[Cell]) -> dict[str, Position]:
    """How far each cell's checkpoint is: (epoch, step)."""
    states = {cell.id: resumable(work, cell) for cell in cells}
    return {name: (state["epoch"], state["step"]) for name, state in states.items() if state}
