"""What a file is that was given as weights and is none: known by its first bytes, said with the way out."""

from __future__ import annotations

import zipfile
from pathlib import Path

SAVE = "save it again as torch.save(model.state_dict(), ...)"
_HEADS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file it stands for; type `git lfs pull` beside it",
    b"<": "is a web page or XML, what a download link answers instead of the file; download it again",
    b"{": f"is JSON, not weights; {SAVE}",
    b"\x89HDF": "is HDF5 (Keras, TensorFlow), which kdbench does not read; convert it for PyTorch",
    b"GGUF": f"is GGUF, quantised weights that kdbench does not read; {SAVE}",
    b"\x93NUMPY": f"is one numpy array, not a state dict; {SAVE}",
    b"\x1f\x8b": "is compressed by gzip; unpack it first",
    b"BZh": "is compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed by xz; unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
}
_MEMBERS = (  # what some name in a zip file ends in, the first that is there counts
    ("constants.pkl", f"is a TorchScript archive, which holds code; {SAVE}, or torch.jit.load(...).state_dict()"),
    ("archive_format", f"is a torch.export archive; {SAVE}"),
    (".weights.h5", "is a Keras model, which kdbench does not read; convert it for PyTorch"),
    ("/data.pkl", ""),  # torch.save
    (".npy", f"holds numpy arrays, which kdbench does not read; {SAVE}"),
    (".pth", "is a zip archive; unpack it first"),
    (".pt", "is a zip archive; unpack it first"),
    (".safetensors", "is a zip archive; unpack it first"),
)  # fmt: skip


def kind(path: Path) -> str:
    """What the file at ``path`` is and what to do, as the rest of a sentence; '' for what may be weights."""
    if path.is_dir():
        return "is a folder; name the weights file in it"
    if not path.is_file():
        return "is not there; name a weights file"
    with path.open("rb") as file:
        head = file.read(1024)
    if not head:
        return "is empty; fetch or save it again"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, words in _HEADS.items():
        if text.startswith(start):
            return words
    return _zipped(path) if head.startswith(b"PK") else ""


def is_safetensors(path: Path) -> bool:
    """By content: a small length, then JSON. Files are renamed."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def _zipped(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damage has many forms
        return "is a zip file that was cut off or damaged; fetch or save it again"
    found = (words for end, words in _MEMBERS if any(name.endswith(end) for name in names))
    return next(found, "")
