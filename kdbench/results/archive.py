"""Move rows between results files without losing one, whenever the process ends: they are copied before they go."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.results import lines, store
from kdbench.utils.files import write_atomic


def copy(file: Path, ids: Collection[str], columns: list[str], target: Path) -> int:
    """Write header and lines of these cells, as they are, to the new file ``target``; return the number of lines.

    Without such lines nothing is written.
    """
    header, chosen, _ = _divided(file, ids, columns)
    if chosen:
        write_atomic(target, b"".join([header, *chosen]), sync=True)
    return len(chosen)


def drop(file: Path, ids: Collection[str], columns: list[str]) -> None:
    """Rewrite the file without the lines of these cells; processes that add rows meanwhile lose none."""
    if not file.exists():
        return
    with store.locked(file):
        header, chosen, rest = _divided(file, ids, columns)
        if chosen:
            write_atomic(file.resolve(), b"".join([header, *rest]), sync=True)


def restore(archive: Path, file: Path, columns: list[str]) -> int:
    """Add the lines of ``archive`` that ``file`` lacks; return their number.

    Raises KdbenchError where the two have different headers.
    """
    if not archive.exists():
        return 0
    header, texts = _lines(lines.content(archive))
    file.parent.mkdir(parents=True, exist_ok=True)
    with store.locked(file):
        content = file.read_bytes()
        names = lines.header(file, content, columns)
        kept = content[: lines.keep(content, names)] if names else b""
        own, present = _lines(kept) if kept else (header, [])
        if _bare(own) != _bare(header):
            raise KdbenchError(
                f"{archive} has another header than {file}; type `kdbench results upgrade {archive}` first"
            )
        known = set(map(_bare, present))
        lacking = [text for text in texts if _bare(text) not in known]
        complete = b"" if lines.last_start(kept) == len(kept) else lines.line_end(kept)
        if lacking:
            write_atomic(file.resolve(), b"".join([kept or header, complete, *lacking]), sync=True)
    return len(lacking)


def _divided(file: Path, ids: Collection[str], columns: list[str]) -> tuple[bytes, list[bytes], list[bytes]]:
    """The header of a file, the lines of these cells, and all other lines; whole lines end with a line end."""
    if not file.exists():
        return b"", [], []
    content = lines.content(file)
    table = lines.read(file, content, columns)
    if not table.header:
        return b"", [], []
    place = table.header.index("cell_id")
    numbers = {n for n, row in zip(table.at, table.rows, strict=True) if row[place] in ids}
    texts = content.splitlines(keepends=True)
    end = lines.line_end(content)
    chosen = [_bare(texts[n - 1]) + end for n in sorted(numbers)]
    rest = [text for n, text in enumerate(texts, 1) if n > 1 and n not in numbers]
    return texts[0], chosen, rest


def _lines(content: bytes) -> tuple[bytes, list[bytes]]:
    header, *texts = content.splitlines(keepends=True)
    return header, [text for text in texts if _bare(text)]


def _bare(text: bytes) -> bytes:
    return text.rstrip(b"\r\n")
