"""State dicts come back from any file that training scripts write; code in a file never runs."""

import os
import pickle
import random
import signal

import numpy as np
import pytest
import safetensors.torch
import torch

from kdbench.errors import KdbenchError
from kdbench.utils.state_dicts import load_state, load_weights, save_state, save_weights, state_dicts

STATE = {"w": torch.arange(12.0).view(3, 4), "n": torch.tensor(3)}


class Bomb:
    """Creates a file when a careless reader unpickles it."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def same(state, expected):
    return state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in expected)


# --- writing ---


def _save_forever(path, started):
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
        writer = in_child(_save_forever, path, started)
        wait_for(started.exists)
        writer.join(moments.random() * 0.02)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        state = load_state(path)
        assert state is not None
        assert state["number"] >= 2
        for key in "ab":
            assert (state[key] == state["number"]).all()


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
    loaded = load_state(tmp_path / "c.pt")
    assert loaded["curves"] == state["curves"]
    assert (loaded["best"], loaded["seconds"]) == (state["best"], state["seconds"])
    assert same(loaded["net"], STATE)
    assert torch.equal(loaded["streams"]["own"], state["streams"]["own"])


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


def test_a_missing_file_has_no_state(tmp_path):
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
def test_weights_are_read_plain_or_within_dictionaries(tmp_path, name, content):
    assert same(load_weights(write(tmp_path / name, content)), STATE)


def test_weights_in_the_old_format_of_torch_are_read(tmp_path):
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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(KdbenchError, match=f"there is no weights file {tmp_path / 'w.pth'}"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, name, share):
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


def test_a_file_is_recognised_by_content_not_by_suffix(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "w.bin")
    torch.save(STATE, tmp_path / "w.safetensors")
    for name in ("w.bin", "w.safetensors"):
        assert same(load_weights(tmp_path / name), STATE)


def test_arrays_paths_and_numbers_of_numpy_are_harmless(tmp_path):
    extra = {"epoch": np.int64(3), "curve": np.arange(3.0), "to": tmp_path}
    assert same(load_weights(write(tmp_path / "w.pth", {"model": STATE, **extra})), STATE)


def test_several_state_dicts_are_all_read_and_none_is_chosen(tmp_path):
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
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(KdbenchError, match=r"w\.pth holds no state dict"):
        load_weights(tmp_path / "w.pth")
