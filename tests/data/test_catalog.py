"""The catalog of data sets says what torchvision, scikit-learn and the shipped suites say."""

import pytest
import torchvision

from kdbench import suites
from kdbench.data.catalog import CATALOG, archive_of, classes_of
from kdbench.data.dataset import split_dataset
from kdbench.data.sources import CIFAR, load_dataset


def test_names_and_counts():
    assert list(CATALOG) == ["digits", "cifar10", "cifar100", "tiny-imagenet", "imagenet"]
    assert all(known.name == name for name, known in CATALOG.items())
    assert (classes_of("cifar100"), classes_of("mine")) == (100, 0)
    assert archive_of("mine") is None
    assert archive_of("imagenet") is None


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifars_archives_are_torchvisions(name):
    archive, theirs = archive_of(name), CIFAR[name]
    assert theirs is getattr(torchvision.datasets, name.upper())
    assert (archive.url, archive.md5, archive.inside) == (theirs.url, theirs.tgz_md5, theirs.base_folder)
    assert archive.filename == theirs.filename
    assert archive.pickled


def test_tiny_imagenets_archive():
    assert archive_of("tiny-imagenet").filename == "tiny-imagenet-200.zip"
    assert not archive_of("tiny-imagenet").pickled


def test_digits_are_those_of_scikit_learn():
    known, data = CATALOG["digits"], load_dataset("digits", None)
    assert known.package == "scikit-learn"
    assert (len(data.train), len(data.test), data.num_classes) == (known.train, known.test, known.classes)
    assert tuple(data.train.images.shape[1:3]) == (known.size, known.size)
    assert split_dataset(data, "test", 0.1).id == known.test_split_id


@pytest.mark.parametrize("name", suites.names())
def test_suites_agree_with_the_catalog(name):
    data = suites.load(name).dataset
    known = CATALOG[data.name]
    assert data.classes == known.classes
    assert data.size == known.size or (known.size == 0 and data.stream)
