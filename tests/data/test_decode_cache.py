"""Decoded images are kept, found again, made anew when a file changes, and never half there."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdbench.data import decode_cache
from kdbench.data.places import cache_folder
from kdbench.data.sources import list_files, load_dataset, load_folder
from tests.support.cli_process import python
from tests.support.image_files import NAMES, arrays, save, write_folders, write_npz


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def root(tmp_path):
    return write_folders(tmp_path / "data")


@pytest.fixture
def decoded(monkeypatch):
    """The folders that were decoded."""
    found = []
    real = decode_cache.decode
    monkeypatch.setattr(
        decode_cache, "decode", lambda listing, size: found.append(listing.root) or real(listing, size)
    )
    return found


def same(one, other):
    return one.id == other.id and all(
        torch.equal(getattr(getattr(one, part), field), getattr(getattr(other, part), field))
        for part in ("train", "test")
        for field in ("images", "targets")
    )


def test_a_second_load_decodes_nothing_and_equals_the_npz(cache, root, decoded, tmp_path):
    one, two = load_dataset("mine", root), load_dataset("mine", root)
    assert decoded == [root]
    want = load_dataset("mine", write_npz(tmp_path, class_names=np.array(NAMES)))
    assert same(one, want)
    assert same(two, want)
    assert one.class_names == two.class_names == NAMES
    assert len(list(cache.iterdir())) == 1


def test_images_are_mapped_and_the_file_is_safe_from_changes(cache, root):
    data = load_dataset("mine", root)
    (file,) = cache.iterdir()
    start = data.train.images.data_ptr()
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if str(file) in line]
    assert any(int(low, 16) <= start < int(high, 16) for low, high in spans)
    want, content = data.train.images[0].clone(), file.read_bytes()
    data.train.images[0] = 7
    assert torch.equal(load_dataset("mine", root).train.images[0], want)
    assert file.read_bytes() == content


def other(image):
    return np.ascontiguousarray(image[::-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda root: save(other(arrays()["x_train"][0]), root / "train" / "ant" / "0.png"),
        lambda root: save(other(arrays()["x_test"][0]), root / "test" / "bee" / "77.png"),
        lambda root: (root / "train" / "ant" / "0.png").unlink(),
        lambda root: (root / "train" / "ant" / "0.png").rename(root / "train" / "bee" / "0.png"),
        lambda root: (root / "train" / "ant" / "0.png").rename(root / "test" / "ant" / "99.png"),
    ],
    ids=["changed", "added", "removed", "other class", "other part"],
)
def test_whatever_changes_a_file_is_seen(cache, root, decoded, change):
    before = load_dataset("mine", root).id
    change(root)
    data = load_dataset("mine", root)
    assert len(decoded) == 2
    assert data.id != before
    assert same(load_dataset("mine", root), data)
    assert len(decoded) == 2


def test_other_pixels_of_equal_length_are_noticed_by_ctime(cache, root, decoded):
    """A palette of one colour more or less gives files of one length."""
    file = root / "train" / "ant" / "0.png"
    flat = np.zeros((6, 6, 3), np.uint8)
    save(flat + 3, file)
    os.utime(file, ns=(1, 10**18))
    before, length = load_dataset("mine", root).id, file.stat().st_size
    save(flat + 5, file)
    os.utime(file, ns=(1, 10**18 + 1))
    assert file.stat().st_size == length
    assert load_dataset("mine", root).id != before


def test_an_equal_file_with_another_time_gives_the_same_set(cache, root, decoded):
    before = load_dataset("mine", root)
    os.utime(root / "test" / "cat" / "2.png", ns=(1, 1))
    assert same(load_dataset("mine", root), before)
    assert len(decoded) == 2


def test_each_size_is_kept_apart(cache, root):
    shapes = [load_folder("mine", root, size=size).train.images.shape[1] for size in (0, 4, 5, 4, 0)]
    assert shapes == [6, 4, 5, 4, 6]
    assert len(list(cache.iterdir())) == 3


def test_another_name_shares_the_cache_a_moved_folder_does_not(cache, root, decoded, tmp_path):
    want = load_dataset("mine", root).id
    shared = load_dataset("yours", root)
    assert (shared.id, shared.name, len(decoded)) == (want, "yours", 1)
    root.rename(tmp_path / "elsewhere")
    assert (load_dataset("mine", tmp_path / "elsewhere").id, len(decoded)) == (want, 2)


def equal_outside(root: Path, image: np.ndarray) -> Path:
    """A folder whose first file is ``image`` as a BMP; all files have one time of change."""
    write_folders(root)
    file = root / "train" / "ant" / "0.png"
    Image.fromarray(image).save(file, format="bmp")
    for each in sorted(root.rglob("*.png")):
        os.utime(each, ns=(10**18, 10**18))
    return file


@pytest.mark.parametrize("side", [6, 200], ids=["short", "long"])
@pytest.mark.parametrize("place", ["one", "two"], ids=["replaced", "beside"])
def test_files_of_equal_names_lengths_and_times_are_told_apart(cache, tmp_path, side, place):
    """Of 117 KiB the pixel that differs is in no piece that is read; the times of the inode or the place tell."""
    first = np.zeros((side, side, 3), np.uint8)
    second = first.copy()
    second[side // 3] = 9
    found = []
    for folder, image in (("one", first), (place, second)):
        file = equal_outside(tmp_path / folder, image)
        found.append((file.stat().st_size, file.stat().st_mtime_ns))
        images = load_folder("mine", tmp_path / folder, size=side).train.images
        assert any(np.array_equal(shown, image) for shown in images.numpy())
    assert found[0] == found[1]


def test_content_alone_is_seen_whatever_the_times_are(root, monkeypatch, tmp_path):
    """Some file systems keep no time of the inode."""
    listing = list_files("mine", root)
    file = root / "train" / "ant" / "0.png"
    stamps = set()
    for value in (3, 5):
        save(np.full((6, 6, 3), value, np.uint8), file)
        real = os.stat(file)
        monkeypatch.setattr(
            decode_cache, "reached", lambda path, real=real: os.stat_result((*real[:6], 99, 0, 0, 0))
        )
        stamps.add(decode_cache.stamp(listing, 0))
    assert len(stamps) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"x" * len(b)])
def test_a_damaged_cache_is_made_anew(cache, root, decoded, damage):
    want = load_dataset("mine", root).id
    (file,) = cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert load_dataset("mine", root).id == want
    assert len(decoded) == 2
    assert load_dataset("mine", root).id == want
    assert len(decoded) == 2


@pytest.mark.parametrize("moment", ["save_file", "fsync"])
def test_a_kill_while_it_is_written_leaves_no_half_cache(cache, root, in_child, monkeypatch, decoded, moment):
    def killed(*args):
        if moment == "save_file":
            Path(args[1]).write_bytes(b"the first half")
        os.kill(os.getpid(), signal.SIGKILL)

    def run():
        setattr(decode_cache if moment == "save_file" else os, moment, killed)
        load_dataset("mine", root)

    child = in_child(run)
    child.join(10)
    assert child.exitcode == -signal.SIGKILL
    assert not list(cache.glob("*.safetensors"))
    assert list(cache.glob("*.tmp"))
    assert len(load_dataset("mine", root).train) == 24
    assert len(decoded) == 1
    assert [file.suffix for file in cache.iterdir()] == [".safetensors"]  # the leftovers too are gone


def test_of_two_processes_one_decodes_and_the_other_waits_for_it(
    cache, root, in_child, wait_for, monkeypatch, tmp_path
):
    log, go = tmp_path / "log", tmp_path / "go"
    log.touch()
    real = decode_cache.decode

    def slow(listing, size):
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        wait_for(go.exists)
        return real(listing, size)

    monkeypatch.setattr(decode_cache, "decode", slow)

    def run(name):
        (tmp_path / name).write_text(load_dataset("mine", root).id)

    one = in_child(run, "one")
    wait_for(log.read_text)
    two = in_child(run, "two")
    two.join(0.2)
    assert two.is_alive()
    go.touch()
    for child in (one, two):
        child.join(10)
        assert child.exitcode == 0
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()
    assert len(log.read_text().split()) == 1
    assert len(list(cache.iterdir())) == 1


def test_where_it_cannot_be_written_images_stay_in_memory(root, monkeypatch, tmp_path, capsys):
    want = load_dataset("mine", write_npz(tmp_path))
    (tmp_path / "file").touch()
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "file"))
    assert same(load_dataset("mine", root), want)
    said = capsys.readouterr()
    assert said.out == ""
    assert "WARNING: the decoded images cannot be saved in" in said.err
    assert "KDBENCH_CACHE" in said.err


def test_a_full_disk_does_not_stop_a_run(root, monkeypatch, tmp_path):
    """The limit on a file's length stands in for it; nothing half written stays."""
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    want = load_dataset("mine", write_npz(tmp_path)).id
    code = f"""
import resource, signal
from pathlib import Path
from kdbench.data.sources import load_dataset
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
print(load_dataset("mine", Path({str(root)!r})).id)
"""
    done = python(code, cwd=tmp_path)
    assert (done.code, done.out.strip()) == (0, want), done.err
    assert "WARNING" in done.err
    assert not list((tmp_path / "cache" / "decoded").iterdir())


def test_home_is_in_the_users_cache(monkeypatch):
    monkeypatch.delenv("KDBENCH_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "kdbench"
