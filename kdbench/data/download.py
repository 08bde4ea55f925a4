"""Download archives. Interrupted downloads resume, are verified by checksum and are unpacked as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from kdbench.data.catalog import Archive
from kdbench.errors import KdbenchError
from kdbench.utils import locks

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 16


def fetch(archive: Archive, folder: Path) -> None:
    """Make ``folder``/``archive.inside``, from the archive in ``folder`` or from its url.

    Raises KdbenchError, which says what to put where, when that fails.
    """
    path = folder / archive.filename
    by_hand = f"get {archive.url} by other means and put {archive.filename} into {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
        with locks.held(folder, [archive.filename], wait=True):
            if (folder / archive.inside).is_dir():  # another process was faster
                return
            if not path.is_file():
                print(f"downloading {archive.url} to {folder}", file=sys.stderr)
                download(archive.url, path, archive.md5)
            elif _md5(path) != archive.md5:
                raise KdbenchError(
                    f"{path} is damaged (its md5 is not {archive.md5}); remove it, or {by_hand}"
                )
            _unpack(path, archive.inside)
    except (OSError, http.client.HTTPException) as error:
        raise KdbenchError(f"{archive.url} cannot be downloaded ({error}); {by_hand}") from error


def download(url: str, path: Path, md5: str) -> None:
    """Download ``url`` to ``path``, continuing ``<path>.part`` where an earlier attempt left one.

    Raises KdbenchError when the file has another checksum (the part is then removed), OSError or HTTPException when
    the server cannot be reached or stops sending (the part stays).
    """
    part = path.with_name(f"{path.name}.part")
    with tqdm(desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
        while True:
            before = _size(part)
            try:
                if _continue(url, part, bar):
                    break
                problem: Exception = ConnectionError("the server stops sending")
            except (OSError, http.client.HTTPException) as error:
                problem = error
            if _size(part) <= before:
                raise problem
    if (actual := _md5(part)) != md5:
        part.unlink()
        raise KdbenchError(
            f"{url} sent a file with the md5 {actual} instead of {md5}; it is removed, try again"
        )
    os.replace(part, path)


def _continue(url: str, part: Path, bar: tqdm) -> bool:
    """Append the rest of ``part`` as far as the server sends it; return whether the file is complete."""
    have = _size(part)
    ask = {"User-Agent": "kdbench", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=ask), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:  # nothing is left to send
            return True
        raise
    with response, open(part, "ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
        bar.n, length = file.tell(), response.length  # 0 where the server starts anew
        bar.total = None if length is None else bar.n + length
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    return bar.total is None or _size(part) >= bar.total


def _unpack(path: Path, inside: str) -> None:
    """Unpack the archive's folder ``inside`` beside it."""
    temporary = path.with_name(f".{inside}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    print(f"unpacking {path}", file=sys.stderr)
    try:
        shutil.unpack_archive(path, temporary, filter=None if path.suffix == ".zip" else "data")
        os.replace(temporary / inside, path.with_name(inside))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
