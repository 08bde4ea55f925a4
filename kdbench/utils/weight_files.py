"""Explain why a file cannot be weights, and what to do: what users download or export by mistake."""

from __future__ import annotations

import zipfile
from pathlib import Path

from kdbench.utils.file_kinds import FileKind, kind_of

SAVE = "save it again as torch.save(model.state_dict(), ...)"
HEAD = 1024  # bytes read to recognise a file
_REASONS = {
    FileKind.GIT_LFS: "is a Git LFS pointer, not the file it stands for; run `git lfs pull` in its folder",
    FileKind.MARKUP: "is a web page or XML, what a download link answers instead of the file; download it again",
    FileKind.JSON: f"is JSON, not weights; {SAVE}",
    FileKind.HDF5: "is HDF5 (Keras, TensorFlow), which kdbench does not read; convert it for PyTorch",
    FileKind.GGUF: f"is GGUF, quantised weights that kdbench does not read; {SAVE}",
    FileKind.NUMPY: f"is one numpy array, not a state dict; {SAVE}",
    FileKind.GZIP: "is compressed by gzip; unpack it first",
    FileKind.BZIP2: "is compressed by bzip2; unpack it first",
    FileKind.XZ: "is compressed by xz; unpack it first",
    FileKind.SEVEN_ZIP: "is a 7z archive; unpack it first",
    FileKind.RAR: "is a RAR archive; unpack it first",
}
_ZIP_MEMBERS = (  # ending of a member's name -> what the archive is; the first ending that occurs decides
    ("constants.pkl", f"is a TorchScript archive, which holds code; {SAVE}, or torch.jit.load(...).state_dict()"),
    ("archive_format", f"is a torch.export archive; {SAVE}"),
    (".weights.h5", "is a Keras model, which kdbench does not read; convert it for PyTorch"),
    ("/data.pkl", ""),  # torch.save
    (".npy", f"holds numpy arrays, which kdbench does not read; {SAVE}"),
    (".pth", "is a zip archive; unpack it first"),
    (".pt", "is a zip archive; unpack it first"),
    (".safetensors", "is a zip archive; unpack it first"),
)  # fmt: skip


def objection(path: Path) -> str:
    """Return why ``path`` cannot be weights and the remedy, as the rest of a sentence; '' if it may be weights."""
    if path.is_dir():
        return "is a folder; name the weights file in it"
    if not path.is_file():
        return "is not there; name a weights file"
    with path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        return "is empty; fetch or save it again"
    if is_safetensors(head):
        return ""
    kind = kind_of(head.removeprefix(b"\xef\xbb\xbf").lstrip())
    if kind is FileKind.ZIP:
        return _zip_objection(path)
    return _REASONS.get(kind, "") if kind else ""


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: eight bytes with a small length, then JSON. Suffixes can be wrong."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def _zip_objection(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damage has many forms
        return "is a zip file that was cut off or damaged; fetch or save it again"
    reasons = (reason for ending, reason in _ZIP_MEMBERS if any(name.endswith(ending) for name in names))
    return next(reasons, "")
