"""Lists of image files in class folders, {train,test|val}/<class>/**, for sets in memory and streamed ones.

A file's label is its top folder below the part, however deep it is. Names are compared and ordered in Unicode's form
NFC, for a Mac may spell them in NFD. Hidden and system files are skipped; other files that are not read are counted.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kdbench.errors import KdbenchError

SUFFIXES = set(".png .jpg .jpeg .webp .bmp .tif .tiff .ppm .pgm".split())  # torchvision's, in any case
COMPANIONS = set(".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .html .log .url".split())  # no one's images
SYSTEM = {"icon\r", "system volume information"} | set(
    "thumbs.db ehthumbs.db desktop.ini __macosx @eadir $recycle.bin lost+found".split()
)
TRAIN = ("train",)
TEST = ("test", "val", "valid", "validation")  # the first one with the classes is evaluated on

Files = list[tuple[str, int]]  # path, label; texts, for a Path a file costs seconds in large sets


class Listing(NamedTuple):
    """The image files below ``root`` with their labels.

    ``parts``: the folders of train and test.  ``folder_names``: the classes' folders in NFC, in the order of their
    labels; ``class_names`` is what the classes are called.  ``notes``: warnings for the user.
    """

    root: Path
    parts: tuple[Path, Path]
    train: Files
    test: Files
    folder_names: tuple[str, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def list_folders(root: Path) -> Listing:
    """The training part and the first of ``TEST`` that has its classes; the folders' names are the classes.

    Labels follow the names' alphabetical order (numerical, if all are numbers). Raises KdbenchError that names the
    folder which is wrong.
    """
    train = part(root, TRAIN) or root / TRAIN[0]
    classes = class_folders(train)
    test, unused = _measured(root, train, classes)
    there = class_folders(test)
    if strangers := sorted(set(there) - set(classes)):
        raise KdbenchError(_stranger(test, train, strangers[0], classes))
    others = Counter[str]()
    training = labelled(classes.values(), others)
    measured = [
        (file, label)
        for label, name in enumerate(classes)
        if name in there
        for file in images(there[name], others)
    ]
    if not measured:
        raise KdbenchError(_nothing(test, others))
    notes = (
        *_unused(test, unused),
        *not_read(root, others),
        *(line for folder in (train, test) for line in _loose(folder)),
        *_order(train, classes),
        *_alike(train, classes),
        *lacking(test, list(classes), (label for _, label in measured)),
    )
    names = tuple(classes)
    return Listing(root, (train, test), training, measured, names, names, notes)


def part(root: Path, names: Iterable[str]) -> Path | None:
    """The first folder of ``root`` that is called so, in any case; None where there is none.

    Raises KdbenchError where two are.
    """
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
    for name in names:
        fitting = [folder for folder in folders if folder.lower() == name]
        if len(fitting) > 1:
            raise KdbenchError(f"{root} has both {' and '.join(fitting)}; put their images into one folder")
        if fitting:
            return root / fitting[0]
    return None


def _measured(root: Path, train: Path, classes: Mapping[str, str]) -> tuple[Path, list[Path]]:
    """The part to measure on, and those that are not used."""
    there = [folder for name in TEST if (folder := part(root, [name]))]
    if not there:
        raise KdbenchError(
            f"{root} has a {train.name} folder but neither test nor val (there is no folder {root / 'test'}); put "
            "<class>/*.png into it"
        )
    fitting = [f for f in there if any(nfc(entry.name) in classes for entry in folders_in(f))]
    if not fitting and len(there) > 1:
        names = " nor ".join(folder.name for folder in there)
        raise KdbenchError(
            f"neither {names} of {root} has a folder that is named as a class of {train.name} is; sort their images "
            "into class folders"
        )
    chosen = (fitting or there)[0]
    return chosen, [folder for folder in there if folder != chosen]


def class_folders(folder: Path) -> dict[str, str]:
    """Path by name (in NFC) of the classes' folders, in the order of their labels."""
    paths: dict[str, str] = {}
    for entry in folders_in(folder):
        name = nfc(entry.name)
        if name in paths:
            raise KdbenchError(
                f"{folder} has two folders {name} whose names differ only in their Unicode form (NFC and NFD); put "
                "their images into one"
            )
        paths[name] = entry.path
    if not paths:
        raise KdbenchError(_nothing(folder, {}))
    numbers = all(name.isdecimal() for name in paths)
    return dict(sorted(paths.items(), key=lambda item: (int(item[0]) if numbers else 0, item[0])))


def labelled(folders: Iterable[str], others: Counter[str]) -> Files:
    """The images of each class's folder; raises KdbenchError for one without any."""
    files: Files = []
    for label, folder in enumerate(folders):
        before = others.copy()
        files_here = images(folder, others)
        if not files_here:
            raise KdbenchError(
                f"{folder} holds no image{_but(others - before)}; put *.png, *.jpg or *.jpeg there or remove the "
                "folder"
            )
        files += [(file, label) for file in files_here]
    return files


def images(folder: str | Path, others: Counter[str]) -> list[str]:
    """The paths of the image files in a folder and all folders below it; ``others`` counts the rest by suffix."""
    paths = []
    for entry in entries(folder):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            paths += images(entry.path, others)
        elif suffix in SUFFIXES:
            paths.append(entry.path)
        elif suffix not in COMPANIONS:
            others[suffix or "no suffix"] += 1
    return paths


def folders_in(folder: Path) -> list[os.DirEntry[str]]:
    """List the folders in a folder, as `entries` does."""
    return [entry for entry in entries(folder) if entry.is_dir()]


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, less hidden and system files.

    Raises KdbenchError for a folder that cannot be read, a link to nowhere and a link to a folder that holds it.
    """
    try:
        with os.scandir(folder) as listed:
            shown = sorted((e for e in listed if not _hidden(e.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise KdbenchError(f"{folder} cannot be read ({error.strerror}); correct its permissions") from error
    for entry in shown:
        if entry.is_symlink():
            _status(entry.path)
            if f"{os.path.realpath(folder)}/".startswith(f"{os.path.realpath(entry.path)}/"):
                raise KdbenchError(f"{entry.path} is a link to a folder that holds it; remove it")
    return shown


def reached(file: str) -> os.stat_result:
    """An image file's length and times. Raises KdbenchError for one that cannot be reached or is empty."""
    status = _status(file)
    if not status.st_size:
        raise KdbenchError(
            f"{file} has no bytes, so it is corrupt, cut short or no image; replace or remove it"
        )
    return status


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:  # a link to nowhere
        raise KdbenchError(f"{path} cannot be read ({error.strerror}); replace or remove it") from error


def nfc(name: str) -> str:
    """Normalise a name to Unicode NFC, so that names are equal on every system."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM


# --- what the user should know ---


def _but(others: Mapping[str, int]) -> str:
    return f" that is read, but {_counts(others)}" if others else ""


def _counts(others: Mapping[str, int]) -> str:
    return ", ".join(f"{suffix} {count:,}" for suffix, count in sorted(others.items()))


def not_read(root: Path, others: Counter[str]) -> list[str]:
    """Warn of files that are not read as images; [] if there are none."""
    if not others:
        return []
    count = others.total()
    what = "1 file is" if count == 1 else f"{count:,} files are"
    kinds = ", ".join(sorted(SUFFIXES))
    return [f"WARNING: {what} not read in {root}: {_counts(others)}; images that are read: {kinds}"]


def _unused(test: Path, unused: list[Path]) -> list[str]:
    if not unused:
        return []
    names = " and ".join(folder.name for folder in unused)
    return [f"{test} is evaluated on; {names} beside it is not used"]


def _loose(folder: Path) -> list[str]:
    """Images right in a part have no label."""
    count = _count_loose(folder)
    if not count:
        return []
    return [f"WARNING: {count:,} images right in {folder} are in no class folder and are not read"]


def _count_loose(folder: Path) -> int:
    names = (entry.name for entry in entries(folder) if not entry.is_dir())
    return sum(os.path.splitext(name)[1].lower() in SUFFIXES for name in names)


def _nothing(folder: Path, others: Mapping[str, int]) -> str:
    loose = _count_loose(folder)
    hint = f", though {loose:,} are right in it" if loose else ""
    return f"{folder} holds no images in class folders{_but(others)}{hint}; put <class>/*.png, *.jpg or *.jpeg there"


def _order(train: Path, classes: Mapping[str, str]) -> list[str]:
    """Where torchvision, which sorts names as the disk spells them, gives other labels."""
    theirs = sorted(map(os.path.basename, classes.values()))
    if theirs == [os.path.basename(path) for path in classes.values()]:
        return []
    here, there = (f"{', '.join(names[:4])}, ..." for names in (list(classes), theirs))
    return [
        f"the classes of {train} are in the order {here}; torchvision's ImageFolder has {there}, so a teacher "
        "trained elsewhere may have its classes in another order"
    ]


def _alike(train: Path, classes: Mapping[str, str]) -> list[str]:
    same: dict[str, list[str]] = {}
    for name in classes:
        same.setdefault(_loosely(name), []).append(name)
    return [
        f"WARNING: {' and '.join(map(repr, names))} in {train} are {len(names)} classes, though their names differ "
        "only in case or blanks; if they are one, put their images into one folder"
        for names in same.values()
        if len(names) > 1
    ]


def lacking(where: object, names: Sequence[str], labels: Iterable[int]) -> list[str]:
    """A warning where classes have no test image: torchvision would number the others anew."""
    present = set(labels)
    without = [name for label, name in enumerate(names) if label not in present]
    if not without:
        return []
    some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
    return [f"WARNING: {where} has no image of {len(without):,} of the {len(names):,} classes: {some}"]


def _stranger(test: Path, train: Path, name: str, classes: Iterable[str]) -> str:
    near = " and ".join(repr(known) for known in classes if _loosely(known) == _loosely(name))
    hint = f" (which has {near}, not {name!r})" if near else ""
    return f"{test / name} has no counterpart in {train}{hint}; rename or remove it"


def _loosely(name: str) -> str:
    return " ".join(name.casefold().split())
