"""Made-up image sets on disk, in every layout that is read."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image

NAMES = ("ant", "bee", "cat")


def arrays(size: int = 6, counts: tuple[int, int] = (24, 9)) -> dict[str, np.ndarray]:
    """Noise of three classes, so many training and test images, under the npz file's keys."""
    random = np.random.default_rng(0)
    y_train, y_test = (np.arange(count) % 3 for count in counts)
    return {
        "x_train": random.integers(0, 256, (counts[0], size, size, 3), dtype=np.uint8),
        "y_train": y_train,
        "x_test": random.integers(0, 256, (counts[1], size, size, 3), dtype=np.uint8),
        "y_test": y_test,
    }


def write_npz(folder: Path, name: str = "mine", **changes) -> Path:
    """``mine.npz``; a change replaces a key, None leaves it out."""
    content = {key: value for key, value in (arrays() | changes).items() if value is not None}
    np.savez(folder / f"{name}.npz", **content)
    return folder


def write_folders(
    root: Path, test: str = "test", names: tuple[str, ...] = NAMES, suffix: str = "png", **shape: Any
) -> Path:
    """Class folders; ``shape`` goes to `arrays`."""
    content = arrays(**shape)
    for part, folder in (("train", "train"), ("test", test)):
        for row, (image, label) in enumerate(zip(content[f"x_{part}"], content[f"y_{part}"], strict=True)):
            save(image, root / folder / names[label] / f"{row}.{suffix}")
    return root


def write_tiny_imagenet(root: Path, suffix: str = "JPEG") -> Path:
    """The same images as Tiny-ImageNet's archive unpacks; lossless, so that their pixels can be compared."""
    content, ids = arrays(), ("n01", "n02", "n10")
    for row, (image, label) in enumerate(zip(content["x_train"], content["y_train"], strict=True)):
        save(image, root / "train" / ids[label] / "images" / f"{ids[label]}_{row}.{suffix}")
        (root / "train" / ids[label] / f"{ids[label]}_boxes.txt").touch()
    lines = []
    for row, (image, label) in enumerate(zip(content["x_test"], content["y_test"], strict=True)):
        save(image, root / "val" / "images" / f"val_{row}.{suffix}")
        lines.append(f"val_{row}.{suffix}\t{ids[label]}\t0\t0\t5\t5\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(ids)))
    (root / "words.txt").write_text("n00\tthing\nn01\tant, emmet\nn10\tcat\n")
    save(content["x_test"][0], root / "test" / "images" / "test_0.JPEG")  # the archive's own test part
    return root


def save(image: np.ndarray, path: Path) -> None:
    """Always PNG, whatever the suffix: decoding goes by content, and nothing is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, format="png")


def write_torchvision(root: Path, monkeypatch) -> dict[str, np.ndarray]:
    """A made-up CIFAR-10 in torchvision's layout, with its checksums put in place of the real ones."""
    random = np.random.default_rng(1)
    content = {}
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for part, file in (("train", "data_batch_1"), ("test", "test_batch")):
        content[f"x_{part}"] = random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        content[f"y_{part}"] = np.arange(20) % 10
        rows = content[f"x_{part}"].transpose(0, 3, 1, 2).reshape(20, -1)
        sums[file] = _dump(folder / file, {"data": rows, "labels": content[f"y_{part}"].tolist()})
    sums["batches.meta"] = _dump(folder / "batches.meta", {"label_names": [f"class{c}" for c in range(10)]})
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [["data_batch_1", sums["data_batch_1"]]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": sums["batches.meta"]})
    return content


def _dump(path: Path, entry: dict) -> str:
    path.write_bytes(pickle.dumps(entry))
    return hashlib.md5(path.read_bytes()).hexdigest()
