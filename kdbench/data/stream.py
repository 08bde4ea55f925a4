"""Image sets too large for memory: class folders that are listed once, then decoded batch by batch in workers.

timm's dataset factory lists the files; its loader factory batches them, makes the evaluation transform (resize,
centre crop) and moves uint8 batches to the device ahead of their use. Our own is what it hands its workers: a sample
is decoded once and every view made from it, from draws that were made beforehand and are looked up by the sample's
place. So a view depends neither on workers nor on batch mates, and a resumed epoch decodes nothing that it skips.
And timm's own dataset would silently put its neighbour in a corrupt file's place; here that is an error.

B = batch, N = samples of a set, S = pixels a side, V = views.
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
from timm.data import create_dataset, create_loader
from torch import Tensor

from kdbench.data.cached import home
from kdbench.data.decode import read_image
from kdbench.data.feed import Fed, Feed, Resident, choices, taken
from kdbench.data.folders import class_folders
from kdbench.data.sets import Dataset, ImageSet, first
from kdbench.data.views import Draws, View, augment, part_of
from kdbench.errors import KdbenchError

WORKERS = 8  # at most, unless a suite says otherwise


@dataclass(frozen=True, eq=False)
class FileSet:
    """``files`` (bytes [N], seen from ``root``) with ``targets`` int64 [N], shown at ``size`` pixels a side.

    ``resize``: what the shorter side is brought to before the centre crop of evaluation.  ``workers``: processes
    that decode; 0 decodes in this one.
    """

    root: Path
    files: np.ndarray
    targets: Tensor
    size: int
    resize: int
    workers: int

    def __len__(self) -> int:
        return len(self.targets)

    def keep(self, mask: Tensor) -> FileSet:
        """The samples where ``mask`` (bool [N]) is true, in the same order."""
        return replace(self, files=self.files[mask.numpy()], targets=self.targets[mask])

    def path(self, row: int) -> Path:
        """Where sample ``row`` lies."""
        return self.root / os.fsdecode(self.files[row])


def image_folder(name: str, data_dir: Path | None) -> Path:
    """Where the class folders of ``name`` are: ``data_dir`` (None: KDBENCH_DATA, else the cache) or ``name`` in it."""
    base = Path(data_dir or os.environ.get("KDBENCH_DATA") or home()).expanduser()
    for folder in (base / name, base):
        if (folder / "train").is_dir():
            return folder
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
    """The class folders ``root``/train and ``root``/val (or test) as a data set of files.

    ``resize`` 0: ``size``.  ``per_class``: keep only so many train and test images of each class.  Order and id come
    from each file's place below its part and its length in bytes, and from ``size`` and ``resize``: reading the
    pixels of 140 GB to name them would take hours. Raises KdbenchError for folders that are missing, empty or strange.
    """
    folders = [root / "train", root / "val" if (root / "val").is_dir() else root / "test"]
    for folder in folders:
        if not folder.is_dir():
            raise KdbenchError(f"there is no folder {folder} with images of {name}; put <class>/*.JPEG there")
    names = class_folders(folders[0])
    if strangers := sorted(set(class_folders(folders[1])) - set(names)):
        raise KdbenchError(
            f"{folders[1] / strangers[0]} has no counterpart in {folders[0]}; rename or remove it"
        )
    workers = min(WORKERS, _processors()) if workers is None else workers
    identity, whole = (hashlib.sha256(f"{size} {resize or size}".encode()) for _ in range(2))
    parts = []
    for folder, limit in zip(folders, per_class, strict=True):
        files, targets, keys = _listed(folder, names)
        whole.update(f"\n{len(keys)}\n".encode() + keys.tobytes())
        if limit is not None:
            few = first(targets, torch.full((len(names),), limit))
            files, targets, keys = files[few.numpy()], targets[few], keys[few.numpy()]
        parts.append(FileSet(folder, files, targets, size, resize or size, workers))
        identity.update(f"\n{len(keys)}\n".encode() + keys.tobytes())
    lacking = (parts[0].targets.bincount(minlength=len(names)) == 0).nonzero().flatten().tolist()
    if lacking:
        raise KdbenchError(
            f"{folders[0] / names[lacking[0]]} holds no image; put *.JPEG there or remove the folder"
        )
    ids = [made.hexdigest()[:12] for made in (identity, whole)]
    return Dataset(name, parts[0], parts[1], tuple(names), *ids)


def _listed(folder: Path, names: list[str]) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """Files, targets and keys (16 bytes each, the hash of place and length) of one part, in the keys' order."""
    try:
        classes = {name: label for label, name in enumerate(names)}
        reader = create_dataset("", root=str(folder.parent), split=folder.name, class_map=classes).reader
    except RuntimeError as error:  # timm found nothing
        raise KdbenchError(f"{folder} holds no images; put <class>/*.JPEG there") from error
    below = len(str(folder)) + 1
    files = [os.fsencode(path[below:]) for path, _ in reader.samples]
    lengths = [os.stat(path).st_size for path, _ in reader.samples]
    digests = (
        hashlib.blake2b(b"%b\n%d" % pair, digest_size=16).digest()
        for pair in zip(files, lengths, strict=True)
    )
    keys = np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    targets = torch.tensor([label for _, label in reader.samples])
    return np.array(files)[order], targets[torch.from_numpy(order)], keys[order]


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Streamed:
    """A feed whose images are decoded while it is read."""

    def __init__(self, samples: FileSet, device: torch.device) -> None:
        self.samples, self.device = samples, device
        self.targets = samples.targets.to(device)

    def __len__(self) -> int:
        return len(self.targets)

    def epoch(
        self, views: Mapping[str, View], where: Sequence[Any], batch_size: int, first_step: int = 0
    ) -> Iterator[Fed]:
        order, draws = choices(views, where, len(self), (self.samples.size,) * 2)
        rest = order[first_step * batch_size :]
        batches = self._batches(Pictures(self.samples, rest, views, draws), batch_size)
        for rows, (index, images) in zip(order.split(batch_size)[first_step:], batches, strict=True):
            yield Fed(rows, index, self.targets[index], images, taken(draws, rows))

    def plain(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
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
            mean=(0.0,) * 3,  # to 0..1 on the device: a Net normalises
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
                f"{str(error).splitlines()[0]}: a process that decodes images died, mostly for want of memory or of"
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
        drawn = taken(self.draws, torch.tensor([row]))
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
