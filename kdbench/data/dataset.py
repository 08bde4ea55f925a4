"""Image sets: canonical order, identity, split, limit.

Samples are sorted by the hash of their content, so the layout and order of files on disk change neither ids nor splits
nor per-sample draws; and since a hash does not depend on the content's meaning, "the first n of a class" is a random
but fixed choice.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from kdbench.errors import KdbenchError, unknown


class Samples(Protocol):
    """An image set, in memory or in files: ``targets`` int64 [N], and subsets of it."""

    @property
    def targets(self) -> Tensor:
        """The classes, int64 [N]."""

    def __len__(self) -> int: ...

    def keep(self, mask: Tensor) -> "Samples":
        """Return the samples where ``mask``, bool [N], is true."""


S = TypeVar("S", bound=Samples)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """``images`` uint8 [N, H, W, 3] and ``targets`` int64 [N], on the CPU."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def keep(self, mask: Tensor) -> "ImageSet":
        """The samples where ``mask`` (bool [N]) is true, in the same order."""
        return ImageSet(self.images[mask], self.targets[mask])


@dataclass(frozen=True)
class Dataset(Generic[S]):
    """A training and a test part in canonical order; ``id`` is a hash of all pixels and labels of both.

    ``notes``: warnings for the user.  ``test_in_train``: test images that are in the training part too
    (see `duplicates`); None where that is not known yet.  ``limited``: the id of the whole set where this is
    only its first images; '' where it is whole.
    """

    name: str
    train: S
    test: S
    class_names: tuple[str, ...]
    id: str
    notes: tuple[str, ...] = ()
    test_in_train: int | None = None
    limited: str = ""

    @property
    def whole(self) -> str:
        """The id of the data set, however much of it this is."""
        return self.limited or self.id

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class Split(Generic[S]):
    """What a run trains on and what it is evaluated on; ``id`` is a hash of both."""

    train: S
    evaluation: S
    id: str
    name: str


def make(name: str, train: ImageSet, test: ImageSet, class_names: tuple[str, ...]) -> Dataset:
    """Sort both parts into canonical order and compute the id of their content."""
    identity = hashlib.sha256()
    parts, pixels = [], []
    for part in (train, test):
        pixels.append(_pixels(part))
        digests = _digests(pixels[-1], part.targets)
        order = sorted(range(len(part)), key=digests.__getitem__)
        identity.update(repr(tuple(part.images.shape)).encode())
        identity.update(b"".join(digests[i] for i in order))
        rows = torch.tensor(order, dtype=torch.int64)
        parts.append(ImageSet(part.images[rows], part.targets[rows]))
    duplicated = repeated(*pixels)
    return Dataset(name, parts[0], parts[1], class_names, identity.hexdigest()[:12], test_in_train=duplicated)


def split_dataset(dataset: Dataset, name: str, holdout: float) -> Split:
    """Split a data set into what is trained on and what is evaluated on.

    name ``test``: train on the training part, evaluate on the test part; the share ``holdout`` is not used.
    name ``holdout``: evaluate on a fixed stratified share of the training part (the first round(holdout * n) of
    each class), train on the rest, and leave the test part alone; for choices that must not be made on test images.
    """
    if name not in ("test", "holdout"):
        raise unknown("split", name, ("test", "holdout"))
    if name == "test":
        return Split(dataset.train, dataset.test, _hash(dataset.id, "test"), name)
    if not 0.0 < holdout < 1.0:
        raise KdbenchError(f"the holdout share must lie between 0 and 1, got {holdout}")
    counts = dataset.train.targets.bincount(minlength=dataset.num_classes)
    held = share(counts, holdout)
    if not ((held > 0) & (held < counts)).all():
        raise KdbenchError(
            f"a holdout share of {holdout} leaves a class of {dataset.name} without images on one side "
            f"(it has {int(counts.min())} to {int(counts.max())} training images per class); choose another"
        )
    mask = first(dataset.train.targets, held)
    identity = _hash(dataset.id, f"holdout {held.tolist()}")
    return Split(dataset.train.keep(~mask), dataset.train.keep(mask), identity, name)


def limit_per_class(dataset: Dataset, train_per_class: int | None, test_per_class: int | None) -> Dataset:
    """The first n images of each class (None, or fewer than n: all) as a data set with its own id."""
    if train_per_class is None and test_per_class is None:
        return dataset
    parts = []
    for part, count in ((dataset.train, train_per_class), (dataset.test, test_per_class)):
        if count is not None and count < 1:
            raise KdbenchError(f"a limit must be at least 1 image per class, got {count}")
        limits = torch.full((dataset.num_classes,), len(part) if count is None else count)
        parts.append(part.keep(first(part.targets, limits)))
    part = make(dataset.name, parts[0], parts[1], dataset.class_names)
    return replace(part, notes=dataset.notes, limited=dataset.whole)


def duplicates(train: ImageSet, test: ImageSet) -> int:
    """How many test images also occur in the training part, pixel for pixel, whatever their labels.

    Each test image counts once, however often it occurs in train; test images that only equal one another do not.
    """
    return repeated(_pixels(train), _pixels(test))


def repeated(known: Iterable[bytes], digests: Iterable[bytes]) -> int:
    """How many of ``digests`` are among ``known``."""
    known = set(known)
    return sum(digest in known for digest in digests)


def first(targets: Tensor, counts: Tensor) -> Tensor:
    """Which samples are among the first ``counts[c]`` of their class c: bool [N]."""
    order = targets.argsort(stable=True)
    sizes = targets.bincount(minlength=len(counts))
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(targets)
    rank[order] = torch.arange(len(targets)) - starts[targets[order]]
    return rank < counts[targets]


def share(counts: Tensor, part: float) -> Tensor:
    """round(part * n) of each class; a half goes to the even neighbour."""
    return (counts.double() * part).round().long()


def _digests(pixels: Sequence[bytes], targets: Tensor) -> list[bytes]:
    """24 bytes per sample that sort by content, then by label: the hash of the pixels, the label."""
    return [image + label.to_bytes(8, "big") for image, label in zip(pixels, targets.tolist(), strict=True)]


def _pixels(part: ImageSet) -> list[bytes]:
    """blake2b of each image's pixels, 16 bytes."""
    images = np.ascontiguousarray(part.images.numpy()).reshape(len(part), -1)
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in images]


def _hash(*words: str) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]
