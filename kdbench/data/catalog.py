"""The data sets that kdbench knows by name: what their published copies contain and where they are downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Archive:
    """A file at ``url`` with the checksum ``md5``, which unpacks to the folder ``inside``.

    pickled: that folder holds CIFAR's pickled arrays, which torchvision reads; else it holds image files.
    """

    url: str
    md5: str
    inside: str
    pickled: bool = False

    @property
    def filename(self) -> str:
        """The last part of the url."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class KnownDataset:
    """The facts of one published data set.

    name: in suites and rows.  title: for readers.  classes: their number.  size: pixels per side, 0 where images
    differ in size.  train, test: numbers of images; test is the part with public labels that papers evaluate on.
    archive: where it is downloaded; None where the user must get it.  package: the installed Python
    package that contains it, '' where none does.  test_split_id: the id of the published images' test split
    (`kdbench.data.dataset.Split`), '' where it is not known.
    """

    name: str
    title: str
    classes: int
    size: int
    train: int
    test: int
    archive: Archive | None = None
    package: str = ""
    test_split_id: str = ""


DATASETS = (
    KnownDataset(
        name="digits",
        title="Digits",
        classes=10,
        size=8,
        train=898,
        test=899,
        package="scikit-learn",
        test_split_id="c3d7e3f3f504",
    ),
    KnownDataset(
        name="cifar10",
        title="CIFAR-10",
        classes=10,
        size=32,
        train=50_000,
        test=10_000,
        archive=Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            inside="cifar-10-batches-py",
            pickled=True,
        ),
    ),
    KnownDataset(
        name="cifar100",
        title="CIFAR-100",
        classes=100,
        size=32,
        train=50_000,
        test=10_000,
        archive=Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            inside="cifar-100-python",
            pickled=True,
        ),
        test_split_id="f592eea6211a",
    ),
    KnownDataset(
        name="tiny-imagenet",
        title="Tiny-ImageNet",
        classes=200,
        size=64,
        train=100_000,
        test=10_000,
        archive=Archive(
            url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            md5="90528d7ca1a48142e341f4ef8d21d0de",
            inside="tiny-imagenet-200",
        ),
    ),
    KnownDataset(name="imagenet", title="ImageNet", classes=1000, size=0, train=1_281_167, test=50_000),
)

CATALOG: Mapping[str, KnownDataset] = MappingProxyType({known.name: known for known in DATASETS})


def archive_of(name: str) -> Archive | None:
    """The archive of the data set ``name``, None where kdbench does not download it."""
    known = CATALOG.get(name)
    return known.archive if known else None


def classes_of(name: str) -> int:
    """The number of classes of the data set ``name``, 0 where it is not in the catalog."""
    known = CATALOG.get(name)
    return known.classes if known else 0
