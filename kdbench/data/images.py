"""Decode image files to pixels."""

import re
import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from kdbench.data.folders import Listing
from kdbench.data.validation import Arrays
from kdbench.errors import KdbenchError


def decode(listing: Listing, size: int = 0) -> Arrays:
    """All images of a listing, in its order. ``size`` as for `read_image`; without one they must be of one size.

    Shows its progress on stderr when that is a terminal and it takes seconds. Raises KdbenchError that names the
    file which is wrong.
    """
    files = [file for file, _ in (*listing.train, *listing.test)]
    first = read_image(files[0], size)
    images = np.empty((len(files), *first.shape), np.uint8)
    for row, file in enumerate(tqdm(files, "decoding", unit="image", delay=2, disable=None, leave=False)):
        image = read_image(file, size)
        if image.shape != first.shape:
            raise KdbenchError(
                f"{file} is {image.shape[0]} x {image.shape[1]} (height x width) but {files[0]} is "
                f"{first.shape[0]} x {first.shape[1]}; resize all images to one size, or give the suite's "
                "dataset = { folder = ... } a size"
            )
        images[row] = image
    y_train, y_test = (
        np.array([label for _, label in part], np.int64) for part in (listing.train, listing.test)
    )
    x_train, x_test = images[: len(y_train)], images[len(y_train) :]
    return Arrays(x_train, y_train, x_test, y_test, listing.class_names)


def _deep(image: Image.Image) -> bool:
    """Whether channels have more than 8 bits, of which Pillow's RGB keeps the high ones alone."""
    stored = [str(tile[3]) for tile in getattr(image, "tile", ())]
    wide = any(";16" in one or (image.format == "PPM" and re.search(r"\d{4,}", one)) for one in stored)
    return wide or image.mode.startswith(("I", "F"))


def read_image(file: str | Path, size: int = 0) -> np.ndarray:
    """RGB pixels, uint8 [H, W, 3]; grey, palette and RGBA images are converted.

    ``size``: images are resized (shorter side to ``size`` pixels, bicubic, antialiased) and centre-cropped to a square;
    an image of this size is left alone. 0: the size in the file. As in torchvision, an orientation in EXIF is not
    applied, hidden colours of transparent pixels show, and of an animation or several pages the first is read. Raises
    KdbenchError for a damaged file.
    """
    try:
        with Image.open(file) as image:
            if _deep(image):
                raise KdbenchError(f"{file} has more than 8 bits per channel; convert it to an 8-bit image")
            colour = image.convert("RGB")
            if size and colour.size != (size, size):
                colour = ImageOps.fit(colour, (size, size), Image.Resampling.BICUBIC)
            return np.asarray(colour)
    except (FileNotFoundError, PermissionError) as error:
        raise KdbenchError(f"{file} cannot be read ({error.strerror}); replace or remove it") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise KdbenchError(f"{file} is corrupt, cut short or no image; replace or remove it") from error
