"""Files that are whole or not there, and files that want to run code."""

import os
import pickle
import random
import signal
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from kdbench.errors import KdbenchError
from kdbench.utils.files import load_state, load_weights, save_state, save_weights, state_dicts, write_atomic

STATE = {"w": torch.arange(12.0).view(3, 4), "n": torch.tensor(3)}


class Bomb:
    """Unpickled by a careless reader it makes a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in expected)


# --- writing ---


def _save_for_ever(path, started):
    number = 0
    while True:
        save_state(
            path, {"number": number, "a": torch.full((20_000,), number), "b": torch.full((9,), number)}
        )
        number += 1
        if number == 3:
            started.write_text("")


def test_a_killed_writer_always_leaves_a_whole_file(tmp_path, in_child, wait_for):
    path, moments = tmp_path / "c.pt", random.Random(0)
    for turn in range(8):
        started = tmp_path / f"started{turn}"
        writer = in_child(_save_for_ever, path, started)
        wait_for(started.exists)
        writer.join(moments.random() * 0.02)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        state = load_state(path)
        assert state is not None
        assert state["number"] >= 2
        for key in "ab":
            assert (state[key] == state["number"]).all()


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    write_atomic(tmp_path / "f", b"old")

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "f", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_a_full_disk_is_an_oserror_and_leaves_no_litter(tmp_path):
    """/dev/full refuses every byte; a folder of links to it is a full disk."""
    temporary = tmp_path / f".c.pt.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        save_state(tmp_path / "c.pt", STATE)
    assert list(tmp_path.iterdir()) == []


def test_writing_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.pt"
    for number in (1, 2):
        save_state(path, {"number": number})
    assert load_state(path) == {"number": 2}
    assert [p.name for p in path.parent.iterdir()] == ["c.pt"]


def test_a_state_of_tensors_and_plain_values_comes_back(tmp_path):
    generator = torch.Generator().manual_seed(3)
    state = {
        "net": STATE,
        "streams": {"global": [torch.get_rng_state()], "own": generator.get_state()},
        "curves": [(1, "loss", 0.1), (1, "top1", 12.5)],
        "best": float("-inf"),
        "seconds": [1.5, 0.25],
    }
    save_state(tmp_path / "c.pt", state)
    found = load_state(tmp_path / "c.pt")
    assert found["curves"] == state["curves"]
    assert (found["best"], found["seconds"]) == (state["best"], state["seconds"])
    assert same(found["net"], STATE)
    assert torch.equal(found["streams"]["own"], state["streams"]["own"])


def test_weights_are_stored_row_major_whatever_their_layout(tmp_path):
    weight = torch.randn(4, 3, 5, 5, requires_grad=True).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", {"w": weight})
    assert torch.equal(load_weights(tmp_path / "w.safetensors")["w"], weight.detach())


def test_weights_that_share_memory_can_be_saved(tmp_path):
    """Tied layers: the same tensor under two names."""
    tied = torch.randn(3, 3)
    save_weights(tmp_path / "w.safetensors", {"a": tied, "b": tied})
    assert same(load_weights(tmp_path / "w.safetensors"), {"a": tied, "b": tied})


# --- reading a training state ---


def test_there_is_no_state_in_a_file_that_is_not_there(tmp_path):
    assert load_state(tmp_path / "none.pt") is None


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"cell_id": "x", "bomb": Bomb(tmp_path / "boom")}, tmp_path / "c.pt")
    assert load_state(tmp_path / "c.pt") is None
    assert not (tmp_path / "boom").exists()


# --- reading weights ---


def write(path, content):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", STATE),
        ("w.pt", {"model": STATE}),
        ("w.pth", {"state_dict": STATE, "epoch": 3}),
        ("w.pth", {"model": {"state_dict": STATE}, "best_acc": 71.2}),
        ("w.safetensors", STATE),
    ],
)
def test_weights_plain_or_wrapped(tmp_path, name, content):
    assert same(load_weights(write(tmp_path / name, content)), STATE)


def test_weights_in_torchs_old_format(tmp_path):
    torch.save({"model": STATE}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(load_weights(tmp_path / "w.pth"), STATE)


def _as_torch(path, bomb):
    torch.save({"model": STATE, "opt": bomb}, path)


def _as_old_torch(path, bomb):
    torch.save({"model": STATE, "opt": bomb}, path, _use_new_zipfile_serialization=False)


def _as_pickle(path, bomb):
    path.write_bytes(pickle.dumps(bomb))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("writer", [_as_torch, _as_old_torch, _as_pickle])
def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path, writer):
    path, trace = tmp_path / "resnet56.pth", tmp_path / "boom"
    writer(path, Bomb(trace))
    with pytest.raises(KdbenchError) as caught:
        load_weights(path)
    assert not trace.exists()
    text = str(caught.value)
    assert text.startswith(f"{path} is not a plain weights file (it ")
    assert ("holds more than tensors, io.open, which" in text) == (writer is not _as_pickle)
    assert "which kdbench never runs" in text
    assert "torch.save(model.state_dict()" in text
    pickle.loads(pickle.dumps(Bomb(trace))).close()  # and the bomb is a real one
    assert trace.exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KdbenchError, match=f"there is no weights file {tmp_path / 'w.pth'}"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_told_by_name(tmp_path, name, share):
    path = write(tmp_path / name, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(KdbenchError, match=str(path)):
        load_weights(path)


def _damaged(content, count):
    draw = random.Random(1)
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 8)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        yield bytes(damaged)
        yield draw.randbytes(draw.randrange(200))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_no_damage_escapes_as_another_error(tmp_path, kind):
    """A few hundred damaged files: each is read, or refused in one sentence."""
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    escaped = set()
    for damaged in _damaged(path.read_bytes(), 150):
        path.write_bytes(damaged)
        try:
            load_weights(path)
        except KdbenchError as error:
            if str(path) not in str(error) or "\n" in str(error):
                escaped.add(str(error))
        except Exception as error:
            escaped.add(type(error).__name__)
        try:
            load_state(path)
        except Exception as error:
            escaped.add(f"{type(error).__name__} in load")
    assert escaped == set()


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
    ("writer", "said"),
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
def test_what_is_no_weights_file_is_named(tmp_path, writer, said):
    path = tmp_path / "w.pth"
    writer(path)
    with pytest.raises(KdbenchError) as caught:
        load_weights(path)
    assert str(caught.value).startswith(f"{path} ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_known_by_its_content_not_its_suffix(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "w.bin")
    torch.save(STATE, tmp_path / "w.safetensors")
    for name in ("w.bin", "w.safetensors"):
        assert same(load_weights(tmp_path / name), STATE)


def test_arrays_paths_and_numbers_of_numpy_are_harmless(tmp_path):
    extra = {"epoch": np.int64(3), "curve": np.arange(3.0), "to": tmp_path}
    assert same(load_weights(write(tmp_path / "w.pth", {"model": STATE, **extra})), STATE)


def test_several_state_dicts_are_all_found_and_not_one_taken(tmp_path):
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    content = {"student": STATE, "more": {"teacher": dict(STATE)}, "optimizer": optimizer}
    path = write(tmp_path / "w.pth", content)
    assert list(state_dicts(path)) == [("student",), ("more", "teacher")]
    with pytest.raises(
        KdbenchError, match=r"w\.pth holds several state dicts \('student', 'more\.teacher'\)"
    ):
        load_weights(path)


def test_a_number_among_the_tensors_is_named(tmp_path):
    with pytest.raises(KdbenchError, match=r"no state dict \('epoch' beside its tensors is int\)"):
        load_weights(write(tmp_path / "w.pth", {**STATE, "epoch": 3}))


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(2)], torch.ones(2), {"model": {"a": 1}}])
def test_a_file_without_a_state_dict_is_told(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(KdbenchError, match=r"w\.pth holds no state dict"):
        load_weights(tmp_path / "w.pth")
