"""A selection with its images opened and everything checked that can be checked before training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kdbench.data.dataset import Dataset, Split, split_dataset
from kdbench.data.loading import load_data
from kdbench.data.streaming import count_duplicates
from kdbench.plan.selection import Selection
from kdbench.results import store
from kdbench.runner.check_ranks import check_ranks
from kdbench.runner.networks import open_networks
from kdbench.runner.options import RunOptions
from kdbench.runner.paths import Paths
from kdbench.suites import Suite, recipe_of, replace_recipe
from kdbench.train.optimizers import check as check_optimizer
from kdbench.utils.environment import choose_devices, unused_gpu
from kdbench.utils.precision import check as check_fast_paths

Say = Callable[[str], object]


@dataclass(frozen=True)
class Workspace:
    """What every room of the runner needs of a selection.

    selection: its data set measured, and the pretrained weights of its networks here. split: the images. data_id: hash
    of the whole data set, however much of it is used. devices: as torch names them; the first one is the driver's own.
    test_in_train: images that are evaluated and are in the training images too; None: not counted (see
    `data.streaming.count_duplicates`). class_names: in the order of their labels.
    """

    selection: Selection
    options: RunOptions
    split: Split
    data_id: str
    devices: tuple[str, ...]
    test_in_train: int | None
    class_names: tuple[str, ...]

    @property
    def device(self) -> str:
        """The device of what this process computes itself."""
        return self.devices[0]

    @property
    def suite(self) -> Suite:
        """The suite, its data set measured."""
        return self.selection.suite

    @property
    def paths(self) -> Paths:
        """The files of its results."""
        return Paths(self.options.results, self.suite.name)


def open_workspace(selection: Selection, options: RunOptions, say: Say) -> Workspace:
    """Load the images of a selection and check device, precision and models; ``say`` gets notes on the images.

    Pretrained weights that are not here yet are downloaded. Raises KdbenchError for data or weights that cannot be had,
    a model that cannot be built or a device that is not there.
    """
    store.check_folder(options.results)
    data = selection.suite.dataset
    if options.workers is not None:
        data = dataclasses.replace(data, workers=options.workers)
    dataset, measured = load_data(data, options.data_dir)
    selection = dataclasses.replace(selection, suite=dataclasses.replace(selection.suite, dataset=measured))
    devices = choose_devices(options.device)
    if note := unused_gpu(options.device):
        say(note)
    _check_recipes(selection, options.graphs, devices)
    split = split_dataset(dataset, selection.split, measured.holdout)
    duplicates = count_duplicates(dataset, split)
    for line in _data_lines(dataset, split, duplicates, measured.stream):
        say(line)
    work = Paths(options.results, selection.suite.name).work
    selection = open_networks(selection, dataset.class_names, work, say, options.teacher_split)
    check_ranks(selection, options, devices)
    return Workspace(selection, options, split, dataset.whole, devices, duplicates, dataset.class_names)


def _check_recipes(selection: Selection, graphs: str, devices: Sequence[str]) -> None:
    suite = selection.suite
    recipes = [recipe_of(suite, pair) for pair in selection.pairs]
    for recipe in (suite.recipe, *recipes):
        check_optimizer(recipe, graphs)
        for device in devices:
            check_fast_paths(recipe.precision, graphs, device)
    teachers = replace_recipe(suite.recipe, suite.teacher_recipe, "teacher_recipe")
    for recipe in (teachers, replace_recipe(teachers, suite.finetune_recipe, "finetune_recipe")):
        check_optimizer(recipe)


def _data_lines(dataset: Dataset, split: Split, duplicates: int | None, streamed: bool) -> Iterator[str]:
    """How the files were read, and whether images that are evaluated are trained on."""
    yield from dataset.notes
    if duplicates:
        how = "byte for byte" if streamed else "pixel for pixel"
        yield (
            f"WARNING: {duplicates:,} of the {len(split.evaluation):,} images that are measured on are in train too, "
            f"{how}; accuracies on them say nothing of new images"
        )
