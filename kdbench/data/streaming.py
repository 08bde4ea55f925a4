"""Image sets too large for memory: class folders that are listed once, then decoded batch by batch in workers.

Files are listed as for sets in memory; timm's loader factory batches them, makes the evaluation transform (resize,
centre crop) and moves uint8 batches to the device ahead of their use. Our own is what it hands its workers: a sample
is decoded once and every view is rendered from it, with draws that were made before the epoch and are looked up by
the sample's row. So a view depends neither on workers nor on batch mates, and a resumed epoch decodes nothing that it
skips. timm's own dataset silently replaces a corrupt file by its neighbour; here that is an error.

B = batch, N = samples of a set, S = pixels per side, V = views.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from timm.data import create_loader
from torch import Tensor

from kdbench.data.augment import Draws, augment, part_of
from kdbench.data.batches import Fed, Feed, Part, Resident, choices, rows_of, whole
from kdbench.data.dataset import Dataset, ImageSet, Split, duplicates, first, repeated
from kdbench.data.decode_cache import sample
from kdbench.data.folders import Files, nfc, reached
from kdbench.data.images import read_image
from kdbench.data.places import data_folder, find
from kdbench.data.sources import list_files
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View

WORKERS = 8  # at most, unless a suite says otherwise
UNCOMPRESSED = (".bmp", ".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff")
READ_AT_MOST = 1 << 28  # bytes of files that are compared


@dataclass(frozen=True, eq=False)
class FileSet:
    """``files`` (bytes [N], relative to ``root``) with ``targets`` int64 [N], shown at ``size`` pixels per side.

    ``lengths``: the files', int64 [N], in bytes.
    ``resize``: what the shorter side is brought to before the centre crop of evaluation.  ``workers``: processes
    that decode; 0 decodes in this one.
    """

    root: Path
    files: np.ndarray
    lengths: np.ndarray
    targets: Tensor
    size: int
    resize: int
    workers: int

    def __len__(self) -> int:
        return len(self.targets)

    def keep(self, mask: Tensor) -> FileSet:
        """The samples where ``mask`` (bool [N]) is true, in the same order."""
        rows = mask.numpy()
        return replace(self, files=self.files[rows], lengths=self.lengths[rows], targets=self.targets[mask])

    def path(self, row: int) -> Path:
        """The file of sample ``row``."""
        return self.root / os.fsdecode(self.files[row])


def image_folder(name: str, data_dir: Path | None) -> Path:
    """The folder below ``data_dir`` that holds the image files of ``name`` (see `places`)."""
    base = data_folder(data_dir)
    if place := find(name, base, stream=True):
        return place.path
    raise KdbenchError(
        f"no images of {name} in {base}: looked for train/<class>/*.JPEG beside val/, there and in {name}/; put them "
        "there, or name their folder with --data-dir"
    )


def list_images(
    name: str,
    root: Path,
    size: int,
    resize: int = 0,
    per_class: tuple[int | None, int | None] = (None, None),
    workers: int | None = None,
) -> Dataset[FileSet]:
    """The image files below ``root`` (see `list_files`) as a data set of files.

    ``resize`` 0: ``size``.  ``per_class``: (train, test), the most images per class.  Order and id come from each
    file's place below its part and its length in bytes (see `_keys`), and from ``size`` and ``resize``: reading the
    pixels of 140 GB to name them would take hours. Raises KdbenchError for folders that are missing, empty or strange.
    """
    listing = list_files(name, root)
    workers = min(WORKERS, _processors()) if workers is None else workers
    identity, whole = (hashlib.sha256(f"{size} {resize or size}".encode()) for _ in range(2))
    parts = []
    for folder, files, limit in zip(listing.parts, (listing.train, listing.test), per_class, strict=True):
        keys, lengths = _keys(folder, files, listing.folder_names)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        places, targets = _placed(folder, files)
        samples = FileSet(
            folder, places[order], lengths[order], targets[order], size, resize or size, workers
        )
        keys = keys[order]
        whole.update(f"\n{len(keys)}\n".encode() + keys.tobytes())
        if limit is not None:
            few = first(samples.targets, torch.full((len(listing.class_names),), limit))
            samples, keys = samples.keep(few), keys[few.numpy()]
        parts.append(samples)
        identity.update(f"\n{len(keys)}\n".encode() + keys.tobytes())
    own, limited = (hashed.hexdigest()[:12] for hashed in (identity, whole))
    return Dataset(name, parts[0], parts[1], listing.class_names, own, listing.notes, limited=limited)


def _placed(folder: Path, files: Files) -> tuple[np.ndarray, Tensor]:
    """Each file's path relative to its part's folder, and its target."""
    below = len(str(folder)) + 1
    places = np.array([os.fsencode(path[below:]) for path, _ in files])
    return places, torch.tensor([label for _, label in files])


def _keys(folder: Path, files: Files, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The key of each file, a hash of its path and length (2 numbers of 8 bytes each), and its length.

    The place is spelled in NFC and starts with the class's folder, even where the label comes from annotations. Of
    formats without compression, whose files are all of one length, bytes of the file count too.
    """
    below = len(str(folder)) + 1
    lengths = [reached(path).st_size for path, _ in files]
    hashed = []
    for (path, label), length in zip(files, lengths, strict=True):
        place, top = nfc(path[below:]), f"{names[label]}/"
        place = place if place.startswith(top) else top + place
        content = sample(path, length) if path.lower().endswith(UNCOMPRESSED) else b""
        line = b"%b\n%d%b" % (os.fsencode(place), length, content)
        hashed.append(hashlib.blake2b(line, digest_size=16).digest())
    return np.frombuffer(b"".join(hashed), ">u8").reshape(-1, 2), np.array(lengths, np.int64)


def _processors() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_duplicates(dataset: Dataset, parts: Split) -> int | None:
    """How many of the images that are measured on are in the training images too; None where it would take long.

    In memory pixel for pixel; of files byte for byte, for decoding them all would take hours: those that have the
    length of one of the other part are read, up to 256 MiB of them.
    """
    if not isinstance(parts.train, FileSet):
        known = dataset.test_in_train if parts.name == "test" else None
        return duplicates(parts.train, parts.evaluation) if known is None else known
    train, test = parts.train, parts.evaluation
    common = np.intersect1d(train.lengths, test.lengths)
    candidates = [(part, np.flatnonzero(np.isin(part.lengths, common))) for part in (train, test)]
    if sum(int(part.lengths[rows].sum()) for part, rows in candidates) > READ_AT_MOST:
        return None
    return repeated(*([_content(part.path(row)) for row in rows.tolist()] for part, rows in candidates))


def _content(file: Path) -> bytes:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
    except OSError as error:
        raise KdbenchError(f"{file} cannot be read ({error.strerror}); replace or remove it") from error


class Streamed:
    """A feed whose images are decoded while it is read."""

    def __init__(self, samples: FileSet, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self.targets = samples.targets.to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def epoch(
        self,
        views: Mapping[str, View],
        where: Sequence[Any],
        batch_size: int,
        first_step: int = 0,
        part: Part = whole,
    ) -> Iterator[Fed]:
        """Yield the batches of an epoch, as `Feed.epoch` says; images are decoded by worker processes."""
        order, draws = choices(views, where, len(self), (self.samples.size,) * 2)
        batches = order.split(batch_size)[first_step:]
        parts = [batch[part(len(batch))] for batch in batches]
        decoded = self._decoded(parts, views, draws)
        for batch, rows, images in zip(batches, parts, decoded, strict=True):
            index = batch.to(self.targets.device, non_blocking=True)
            yield Fed(rows, index, self.targets[index], images, rows_of(draws, rows))

    def _decoded(
        self, parts: Sequence[Tensor], views: Mapping[str, View], draws: Mapping[str, Draws]
    ) -> Iterator[dict[str, Tensor]]:
        """The images of the rows ``parts`` by view. All have the size of the first but the last, which may have any."""
        alike = [rows for rows in parts if len(rows) <= len(parts[0])]
        for rows in filter(
            None, (alike, parts[len(alike) :])
        ):  # a last batch that is not shared may be larger
            pictures = Pictures(self.samples, torch.cat(list(rows)), views, draws)
            for _, images in self._batches(pictures, len(rows[0])):
                yield images

    def plain(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the whole set in its order, as `Feed.plain` says."""
        pictures = Pictures(self.samples, torch.arange(len(self)), {"plain": View()}, {"plain": {}})
        for index, images in self._batches(pictures, batch_size):
            yield index, self.targets[index], images["plain"]

    def _batches(self, pictures: Pictures, batch_size: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Index [B] and images by view. Raises KdbenchError naming a file that cannot be decoded."""
        size, resize = self.samples.size, self.samples.resize
        loader = create_loader(
            pictures,  # type: ignore[arg-type]
            size,
            batch_size,
            is_training=False,  # keep our order and the last batch; `Pictures` makes the random views
            crop_pct=size / (resize + 0.5),  # timm resizes to floor(size / crop_pct)
            mean=(0.0,) * 3,  # to 0..1 on the device: a Network normalises
            std=(1.0,) * 3,
            num_workers=self.samples.workers,
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
            device=self.device,
            persistent_workers=False,
            worker_seeding=_deaf,  # type: ignore[arg-type]
        )
        try:
            for images, index in loader:
                yield index, dict(zip(pictures.views, images.unbind(), strict=True))
        except KdbenchError as error:  # from a worker it comes with the worker's traceback before it
            raise KdbenchError(str(error).strip().splitlines()[-1].removeprefix(f"{_NAME}: ")) from None
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise KdbenchError(
                f"{str(error).splitlines()[0]}: a process that decodes images died, usually for lack of memory or of"
                " space in /dev/shm; free some, or give the suite's dataset fewer workers"
            ) from error


_NAME = f"{KdbenchError.__module__}.{KdbenchError.__qualname__}"


class Pictures(torch.utils.data.Dataset):
    """What workers run: (uint8 [V, S, S, 3], place in the set) of the samples ``order`` [N], decoded once each."""

    def __init__(
        self, samples: FileSet, order: Tensor, views: Mapping[str, View], draws: Mapping[str, Draws]
    ) -> None:
        self.samples, self.order, self.views, self.draws = samples, order, views, draws
        self.transform: Any = None  # PIL image -> uint8 [3, S, S]; the loader factory sets it

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        row = int(self.order[number])
        picture = Image.fromarray(read_image(self.samples.path(row)))
        drawn = rows_of(self.draws, torch.tensor([row]))
        return torch.cat([self._shown(picture, view, drawn[name]) for name, view in self.views.items()]), row

    def _shown(self, picture: Image.Image, view: View, draws: Draws) -> Tensor:
        """uint8 [1, S, S, 3]."""
        if view.scale:
            part = part_of(view, draws["part"][0].tolist(), picture.height, picture.width)
            pixels = TF.pil_to_tensor(TF.resized_crop(picture, *part, [self.samples.size] * 2))
        else:
            pixels = self.transform(picture)
        return augment(view, pixels.permute(1, 2, 0)[None].contiguous(), draws)


def _collate(samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """uint8 [V, B, 3, S, S], each view channels_last, and places [B]."""
    pictures, rows = zip(*samples, strict=True)
    return torch.stack(pictures, dim=1).permute(0, 1, 4, 2, 3), torch.tensor(rows)


def _deaf(worker: Any) -> int:
    """Ctrl-C is for the main process to hear: it finishes its step and saves. Returns the worker's seed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return worker.seed


def open_feed(samples: ImageSet | FileSet, device: torch.device) -> Feed:
    """The feed of a set on ``device``."""
    return Streamed(samples, device) if isinstance(samples, FileSet) else Resident(samples, device)
