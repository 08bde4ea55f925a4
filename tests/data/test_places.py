"""One search order: what is found is what is loaded, streamed and announced."""

import pytest

from kdbench.data.loading import load_data
from kdbench.data.places import Layout, Place, data_folder, find, is_local
from kdbench.errors import KdbenchError
from kdbench.suites import DataSpec
from tests.support.cli_process import kdbench
from tests.support.image_files import write_folders, write_npz, write_tiny_imagenet

CHANNELS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_order_of_layouts(tmp_path):
    (tmp_path / "readme.txt").touch()
    assert find("tiny-imagenet", tmp_path) is None
    write_folders(tmp_path)
    assert find("tiny-imagenet", tmp_path) == Place(tmp_path, Layout.FOLDERS)
    write_folders(tmp_path / "tiny-imagenet")
    assert find("tiny-imagenet", tmp_path) == Place(tmp_path / "tiny-imagenet", Layout.FOLDERS)
    write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    assert find("tiny-imagenet", tmp_path) == Place(tmp_path / "tiny-imagenet-200", Layout.FOLDERS)
    write_npz(tmp_path, "tiny-imagenet")
    assert find("tiny-imagenet", tmp_path) == Place(tmp_path / "tiny-imagenet.npz", Layout.NPZ)
    assert find("tiny-imagenet", tmp_path, stream=True) == Place(
        tmp_path / "tiny-imagenet-200", Layout.FOLDERS
    )


def test_cifars_pickled_arrays_are_never_streamed(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    assert find("cifar100", tmp_path) == Place(tmp_path / "cifar-100-python", Layout.PICKLED)
    assert find("cifar100", tmp_path, stream=True) is None
    assert find("cifar10", tmp_path) is None


def test_a_file_in_the_place_of_a_folder_is_not_found(tmp_path):
    (tmp_path / "tiny-imagenet-200").touch()
    (tmp_path / "cifar-100-python").touch()
    (tmp_path / "imagenet.npz").mkdir()
    assert [find(name, tmp_path) for name in ("tiny-imagenet", "cifar100", "imagenet")] == [None] * 3


def test_the_folder_is_option_then_variable_then_cache(tmp_path, cache, monkeypatch):
    assert data_folder(None) == cache
    monkeypatch.setenv("KDBENCH_DATA", "~/images")
    assert data_folder(None).name == "images"
    assert "~" not in str(data_folder(None))
    assert data_folder(tmp_path) == tmp_path


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("layout", ["archive", "name", "folder", "npz", "nothing"])
def test_a_set_is_local_exactly_when_it_loads(tmp_path, stream, layout):
    """Also of streamed sets: `kdbench suites` must not read what is not there, nor miss what is."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "readme.txt").touch()
    if layout == "archive":
        write_tiny_imagenet(root / "tiny-imagenet-200")
    elif layout == "npz":
        write_npz(root, "tiny-imagenet")
    elif layout != "nothing":
        write_folders(root / "tiny-imagenet" if layout == "name" else root)
    spec = DataSpec(
        "tiny-imagenet", classes=3, size=6, stream=stream, workers=0 if stream else None, **CHANNELS
    )
    expected = layout not in ("nothing", "npz" if stream else "nothing")
    assert is_local(spec, root) == expected
    if expected:
        assert len(load_data(spec, root)[0].train) == 24
    elif stream:
        with pytest.raises(KdbenchError, match="no images of tiny-imagenet"):
            load_data(spec, root)


def test_sets_with_a_place_of_their_own_are_local(tmp_path):
    assert is_local(DataSpec("digits"), tmp_path / "nowhere")
    assert is_local(DataSpec("mine", folder="a"), None)
    assert is_local(DataSpec("mine", npz="a.npz"), None)
    assert not is_local(DataSpec("mine"), None)


@pytest.mark.parametrize("stream", [False, True])
def test_suites_shows_tiny_imagenet_from_the_cache(tmp_path, cache, stream):
    """In memory or streamed from the folder that a download left; no other suite takes it for its own."""
    write_tiny_imagenet(cache / "tiny-imagenet-200")
    lines = ["classes = 3", "size = 6", *(["stream = true", "workers = 0"] if stream else [])]
    pairs = 'pairs = [{ teacher = "resnet20", student = "resnet8" }]'
    text = "\n".join(['base = "tiny-imagenet"', pairs, "[dataset]", *lines])
    (tmp_path / "mine.toml").write_text(text)
    own = kdbench("suites", "mine.toml", "--no-timing", cwd=tmp_path)
    assert own.code == 0, own.err
    assert "24 train and 9 test images" in " ".join(own.out.split())
    other = kdbench("suites", "imagenet", "--no-timing", cwd=tmp_path)
    assert other.code == 0, other.err
    assert "data not found" in " ".join(other.out.split())
