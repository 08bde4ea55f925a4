"""Small JPEGs in class folders, for the tests of images that stream."""

from pathlib import Path

import numpy as np
from PIL import Image

from kdbench.data import streaming
from kdbench.data.streaming import list_images
from kdbench.suites import DataSpec
from kdbench.suites.schema import View

NAMES = ("n01", "n02", "n10")
SIZE, RESIZE = 32, 36
WEAK = View(scale=(0.08, 1.0), flip=True)
STRONG = View(scale=(0.08, 1.0), flip=True, ops=2, magnitude=10, cutout=0.5)
SPEC = DataSpec(
    "pictures", 3, SIZE, (0.4,) * 3, (0.3,) * 3, stream=True, eval_resize=RESIZE, workers=0, holdout=0.25
)


def write_images(root: Path, train: int = 8, val: int = 4) -> Path:
    """JPEGs of 20 to 70 px a side, no two alike; those of a class share a colour."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(NAMES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(20, 70, 2)
                pixels = random.integers(0, 120, (height, width, 3))
                pixels[..., label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(root / part / name / f"{name}_{number}.JPEG")
    return root


def listed(root, workers=0, **options):
    """The images below ``root`` as a data set of files."""
    return list_images("pictures", root, SIZE, RESIZE, workers=workers, **options)


def count_decodes(monkeypatch):
    """The files in the order in which they are decoded from now on (in this process)."""
    files, real = [], streaming.read_image

    def count(file):
        files.append(file)
        return real(file)

    monkeypatch.setattr(streaming, "read_image", count)
    return files
