"""Canonical order, ids, splits, limits."""

import time

import pytest
import torch

from kdbench.data.dataset import ImageSet, limit_per_class, make, split_dataset
from kdbench.data.sources import load_dataset
from kdbench.errors import KdbenchError


def image_set(counts: list[int], seed: int, size: int = 4) -> ImageSet:
    """``counts[c]`` noise images of class c, in random order."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor([c for c, count in enumerate(counts) for _ in range(count)])
    targets = targets[torch.randperm(len(targets), generator=generator)]
    shape = (len(targets), size, size, 3)
    return ImageSet(torch.randint(256, shape, dtype=torch.uint8, generator=generator), targets)


def tiny(counts=(10, 7, 5), test=(3, 3, 3), seed=0):
    return make("tiny", image_set(list(counts), seed), image_set(list(test), seed + 1), ("a", "b", "c"))


def shuffled(part: ImageSet, seed: int) -> ImageSet:
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    return ImageSet(part.images[order], part.targets[order])


def keys(part: ImageSet) -> set[tuple[bytes, int]]:
    return {
        (image.numpy().tobytes(), int(label)) for image, label in zip(part.images, part.targets, strict=True)
    }


def counts(part: ImageSet) -> list[int]:
    return part.targets.bincount(minlength=3).tolist()


def same(one: ImageSet, other: ImageSet) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_order_on_disk_changes_nothing():
    data = tiny()
    again = make("tiny", shuffled(data.train, 5), shuffled(data.test, 6), data.class_names)
    assert again.id == data.id
    assert same(again.train, data.train)
    assert same(again.test, data.test)
    one, other = split_dataset(data, "holdout", 0.3), split_dataset(again, "holdout", 0.3)
    assert one.id == other.id
    assert same(one.train, other.train)
    assert same(one.evaluation, other.evaluation)


def test_equal_images_with_two_labels_are_ordered_too():
    images = torch.zeros(4, 2, 2, 3, dtype=torch.uint8)
    part = ImageSet(images, torch.tensor([1, 0, 1, 0]))
    assert make("x", part, part, ("a", "b")).train.targets.tolist() == [0, 0, 1, 1]


def test_id_sees_every_pixel_label_part_and_the_shape():
    data = tiny()
    ids = {data.id}
    for part in ("train", "test"):
        for field, change in (("images", (0, 1, 2, 0)), ("targets", (0,))):
            parts = {
                name: ImageSet(getattr(data, name).images.clone(), getattr(data, name).targets.clone())
                for name in ("train", "test")
            }
            values = getattr(parts[part], field)
            values[change] = (values[change] + 1) % 3
            ids.add(make("tiny", parts["train"], parts["test"], data.class_names).id)
    ids.add(make("tiny", data.test, data.train, data.class_names).id)
    flat = [ImageSet(p.images.reshape(len(p), 2, 8, 3), p.targets) for p in (data.train, data.test)]
    ids.add(make("tiny", flat[0], flat[1], data.class_names).id)
    assert len(ids) == 7
    assert make("other", data.train, data.test, data.class_names).id == data.id
    assert len(data.id) == 12


def test_split_test_is_the_data_sets_own():
    data = tiny()
    whole = split_dataset(data, "test", 0.2)
    assert same(whole.train, data.train)
    assert same(whole.evaluation, data.test)
    assert whole.name == "test"
    assert whole.id == split_dataset(data, "test", 0.7).id != split_dataset(data, "holdout", 0.2).id


def test_holdout_is_a_stratified_part_of_train():
    data = tiny(counts=(10, 7, 5))
    parts = split_dataset(data, "holdout", 0.3)
    assert counts(parts.evaluation) == [3, 2, 2]  # round(3), round(2.1), round(1.5) to even
    assert counts(parts.train) == [7, 5, 3]
    assert keys(parts.train) | keys(parts.evaluation) == keys(data.train)
    assert not keys(parts.train) & keys(parts.evaluation)
    assert not keys(data.test) & (keys(parts.train) | keys(parts.evaluation))
    for label, count in enumerate([3, 2, 2]):
        of_class = data.train.images[data.train.targets == label]
        assert torch.equal(parts.evaluation.images[parts.evaluation.targets == label], of_class[:count])
    assert split_dataset(data, "holdout", 0.31).id == parts.id  # the same images
    assert split_dataset(data, "holdout", 0.4).id != parts.id


@pytest.mark.parametrize(
    ("name", "share"), [("holdout", 0.0), ("holdout", 1.0), ("holdout", 0.05), ("tset", 0.2)]
)
def test_impossible_splits_are_refused(name, share):
    with pytest.raises(KdbenchError, match=r"holdout share|did you mean 'test'"):
        split_dataset(tiny(), name, share)


def test_limit_takes_the_first_of_each_class():
    data = tiny(counts=(10, 7, 5))
    less = limit_per_class(data, 6, 2)
    assert counts(less.train) == [6, 6, 5]
    assert counts(less.test) == [2, 2, 2]
    for label in range(3):
        assert torch.equal(
            less.train.images[less.train.targets == label], data.train.images[data.train.targets == label][:6]
        )
    assert less.id not in (data.id, limit_per_class(data, 5, 2).id)
    assert limit_per_class(data, 6, None).test.images.shape == data.test.images.shape
    assert limit_per_class(data, 100, 100).id == limit_per_class(data, None, None).id == data.id
    with pytest.raises(KdbenchError, match="limit"):
        limit_per_class(data, 0, None)


def test_digits_are_scikit_learns():
    data = load_dataset("digits", None)
    assert (len(data.train), len(data.test), data.num_classes) == (898, 899, 10)
    assert data.train.images.shape[1:] == (8, 8, 3)
    assert data.train.images.dtype == torch.uint8
    images = torch.cat([data.train.images, data.test.images])
    assert (images == images[..., :1]).all()
    assert images.max() == 255
    from sklearn.datasets import load_digits

    bunch = load_digits()
    first = torch.from_numpy(bunch.images[0] * 255 / 16).round().to(torch.uint8)
    found = (images[..., 0] == first).all(1).all(1).nonzero().flatten()
    assert torch.cat([data.train.targets, data.test.targets])[found].tolist() == [bunch.target[0]]
    per_class = torch.stack([data.train.targets.bincount(), data.test.targets.bincount()])
    assert (per_class[0] - per_class[1]).abs().max() <= 2
    assert torch.equal(per_class.sum(0), torch.from_numpy(bunch.target).bincount())
    assert load_dataset("digits", None).id == data.id
    with pytest.raises(KdbenchError, match="digits must have 7"):
        load_dataset("digits", None, num_classes=7)


def test_canonical_order_is_quick():
    part = image_set([100] * 100, 0, size=32)
    start = time.process_time()
    make("x", part, part, tuple("abc"))
    assert time.process_time() - start < 5  # 20,000 images; a fraction of a second unless it is quadratic
