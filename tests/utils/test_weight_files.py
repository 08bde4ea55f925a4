"""Files that users give as weights by mistake are named by what they are, with the remedy."""

import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from kdbench.errors import KdbenchError
from kdbench.utils.state_dicts import load_weights
from kdbench.utils.weight_files import objection

STATE = {"w": torch.arange(12.0).view(3, 4)}


def _module(path):
    torch.save(torch.nn.Linear(2, 2), path)


def _script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def _npz(path):
    with path.open("wb") as file:
        np.savez(file, w=np.ones(3))


def _zip(path):
    torch.save(STATE, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/t.pth", content)


def _text(text):
    return lambda path: path.write_bytes(text)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (_module, "holds more than tensors, torch.nn.modules.linear.Linear, which kdbench never runs"),
        (_script, "is a TorchScript archive"),
        (_npz, "holds numpy arrays"),
        (_zip, "is a zip archive; unpack it first"),
        (lambda path: path.mkdir(), "is a folder; name the weights file in it"),
        (_text(b""), "is empty"),
        (_text(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n"), "is a Git LFS pointer"),
        (_text(b"\n <!DOCTYPE html><html><title>Virus scan warning</title></html>"), "is a web page"),
        (_text(b'{"weight_map": {}}'), "is JSON"),
        (_text(b"\x89HDF\r\n\x1a\n" + bytes(50)), "is HDF5"),
        (_text(b"PK\x03\x04" + bytes(50)), "was cut off or damaged"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_weights_is_named(tmp_path, writer, reason):
    path = tmp_path / "w.pth"
    writer(path)
    with pytest.raises(KdbenchError) as caught:
        load_weights(path)
    assert str(caught.value).startswith(f"{path} ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("start", [b" <", b" {", b"\n<"])
def test_safetensors_whose_length_looks_like_text_are_read(tmp_path, start):
    """The first eight bytes are the header's length, which may be those of a blank and a bracket."""
    path = tmp_path / "w.safetensors"
    content = safetensors.torch.save(STATE)
    length = int.from_bytes(start, "little")
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].ljust(length)
    path.write_bytes(length.to_bytes(8, "little") + header + content[-48:])
    assert path.read_bytes().startswith(start)
    assert objection(path) == ""
    assert torch.equal(load_weights(path)["w"], STATE["w"])
