"""Image folders as people have them: which files are read, under which label, and the same in memory and streamed."""

import itertools
import os
import struct
import unicodedata
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kdbench.data.images import read_image
from kdbench.data.sources import list_files, load_folder
from kdbench.data.streaming import list_images
from kdbench.errors import KdbenchError
from tests.support.image_files import save, write_folders, write_tiny_imagenet

SIDE = 4
NFC, NFD = (unicodedata.normalize(form, "Äpfel") for form in ("NFC", "NFD"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def colour(number: int) -> np.ndarray:
    """An image that no other number has."""
    return np.full((SIDE, SIDE, 3), [number % 251, number // 251, 7], np.uint8)


def plant(root: Path, places: list[str]) -> dict[bytes, str]:
    """An image at each place; the places by pixels."""
    for number, place in enumerate(places):
        save(colour(number), root / place)
    return {colour(number).tobytes(): place for number, place in enumerate(places)}


def streamed(root: Path) -> tuple[set, set]:
    dataset = list_images("x", root, SIDE, workers=0)
    return tuple(
        {(str(part.path(row).relative_to(root)), int(part.targets[row])) for row in range(len(part))}
        for part in (dataset.train, dataset.test)
    )


def in_memory(root: Path, planted: dict[bytes, str]) -> tuple[set, set]:
    dataset = load_folder("x", root)
    return tuple(
        {
            (planted[image.numpy().tobytes()], int(label))
            for image, label in zip(part.images, part.targets, strict=True)
        }
        for part in (dataset.train, dataset.test)
    )


def notes(root: Path) -> list[str]:
    found = list_images("x", root, SIDE, workers=0).notes
    assert load_folder("x", root).notes == found
    return list(found)


# --- one tree, its right reading by hand ---

READ = {
    "Train/10/a.PNG": 1,
    "Train/10/b.webp": 1,
    "Train/10/more/deep/c.Jpg": 1,
    "Train/10/2/d.bmp": 1,  # the folder of another class's name has the label of its top folder
    "Train/2/a.png": 0,
    "Train/2/two words .tiff": 0,
    f"Train/2/{NFD}.jpeg": 0,
    "test/10/a.ppm": 1,
    "test/2/x/a.pgm": 0,
}
NOT_READ = [
    *(
        "Train/10/._a.PNG",
        "Train/10/.hidden/e.png",
        "Train/2/__MACOSX/f.png",
        "Train/.ipynb_checkpoints/g.png",
    ),
    *("Train/@eaDir/h.png", "Train/2/i.gif", "Train/2/j", "test/2/k.HEIC", "Train/l.png", "val/2/m.png"),
    *("test/Thumbs.db", "test/desktop.ini", "Train/2/n.txt"),
]


def test_a_nasty_tree_is_read_as_written_out_here(tmp_path):
    planted = plant(tmp_path, [*READ, *NOT_READ])
    train = {(place, label) for place, label in READ.items() if place.startswith("Train")}
    want = (train, set(READ.items()) - train)
    assert in_memory(tmp_path, planted) == want
    assert streamed(tmp_path) == want
    measured, left, loose, order = notes(tmp_path)
    assert measured == f"{tmp_path}/test is evaluated on; val beside it is not used"
    assert left.startswith(f"WARNING: 3 files are not read in {tmp_path}: .gif 1, .heic 1, no suffix 1; ")
    assert loose == f"WARNING: 1 images right in {tmp_path}/Train are in no class folder and are not read"
    assert "in the order 2, 10, ...; torchvision's ImageFolder has 10, 2, ..." in order


# --- trees made up ---

NAME = st.sampled_from(["a", "b", "10", "9", NFC, NFD, "Ω", "x y", "é", "e\u0301", "B"])
FILE = st.tuples(
    st.sampled_from(["1", "two", NFD, ".h", "._1"]),
    st.sampled_from(["", ".png", ".PNG", ".jpeg", ".WebP", ".tif", ".gif", ".txt", ".heic"]),
).map("".join)
BELOW = st.lists(st.sampled_from(["deep", "a", ".git", "__MACOSX", NFC]), max_size=2)
PLACE = st.tuples(NAME, BELOW, FILE).map(lambda found: "/".join([found[0], *found[1], found[2]]))
PART = st.lists(PLACE, max_size=8)
TREE = st.fixed_dictionaries(
    {"train": st.lists(PLACE, min_size=1, max_size=12)},
    optional={"test": PART, "val": PART, "Validation": PART},
)
READABLE = (".png", ".jpeg", ".webp", ".tif")


def shown(place: str) -> bool:
    names = place.split("/")
    return not any(name.startswith(".") or name == "__MACOSX" for name in names) and place.lower().endswith(
        READABLE
    )


def same_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def right(tree: dict[str, list[str]]) -> tuple[set, set] | None:
    """The (place, label) of both parts, from the places alone; None for a tree that is refused."""
    tops = {part: {place.split("/")[0] for place in places} for part, places in tree.items()}
    classes = sorted(map(same_name, tops["train"]))
    if all(name.isdecimal() for name in classes):
        classes.sort(key=int)
    parts = [part for part in ("test", "val", "Validation") if part in tree]
    part = next((p for p in parts if set(classes) & set(map(same_name, tops[p]))), None)
    if part is None or set(map(same_name, tops[part])) - set(classes):
        return None
    if any(len(set(map(same_name, tops[p]))) < len(tops[p]) for p in ("train", part)):
        return None
    train, test = (
        {(f"{p}/{q}", classes.index(same_name(q.split("/")[0]))) for q in tree[p] if shown(q)}
        for p in ("train", part)
    )
    return (train, test) if test and {label for _, label in train} == set(range(len(classes))) else None


def both_loaders_read_it_right(tree):
    tree = {part: list(dict.fromkeys(places)) for part, places in tree.items()}
    with TemporaryDirectory() as place:
        planted = plant(root := Path(place), [f"{part}/{p}" for part, ps in tree.items() for p in ps])
        want = right(tree)
        if want is None:
            for load in (load_folder, lambda name, root: list_images(name, root, SIDE, workers=0)):
                with pytest.raises(KdbenchError) as caught:
                    load("x", root)
                assert "\n" not in str(caught.value)
        else:
            assert in_memory(root, planted) == want
            assert streamed(root) == want


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
@given(TREE)
def test_both_loaders_read_any_tree_alike(tree):
    both_loaders_read_it_right(tree)


@pytest.mark.slow
@settings(max_examples=3000, derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
@given(TREE)
def test_both_loaders_read_any_of_many_trees_alike(tree):
    both_loaders_read_it_right(tree)


# --- names ---


def spelled(root: Path, form: str, names=("Äpfel", "Birne", "Ölweide")) -> Path:
    return write_folders(root, names=tuple(unicodedata.normalize(form, name) for name in names))


def test_a_mac_and_linux_spell_one_set(tmp_path):
    one, two = (spelled(tmp_path / form / "photos", form) for form in ("NFC", "NFD"))
    assert (two / "train" / NFD).is_dir()
    for load in (load_folder, lambda name, root: list_images(name, root, 6, workers=0)):
        here, there = (load("x", root) for root in (one, two))
        assert (here.id, here.class_names) == (there.id, there.class_names)
        assert here.class_names == ("Birne", NFC, unicodedata.normalize("NFC", "Ölweide"))
    assert notes(one) == []
    assert len(notes(two)) == 1  # torchvision would sort by the bytes that the disk has


def test_one_part_of_a_mac_and_one_of_linux_fit(tmp_path):
    root = spelled(tmp_path / "photos", "NFC")
    (root / "test" / NFC).rename(root / "test" / NFD)
    assert len(load_folder("x", root).test) == 9


def test_two_spellings_in_one_part_are_refused(tmp_path):
    plant(tmp_path, [f"train/{NFC}/1.png", f"train/{NFD}/2.png", f"test/{NFC}/3.png"])
    with pytest.raises(KdbenchError, match=r"two folders .* differ only in their Unicode form"):
        list_files("x", tmp_path)


def test_names_that_look_alike_are_told(tmp_path):
    plant(tmp_path, ["train/Cat/1.png", "train/cat/2.png", "test/cat/3.png"])
    alike, lacking = notes(tmp_path)
    assert alike.startswith("WARNING: 'Cat' and 'cat' in ")
    assert lacking == f"WARNING: {tmp_path}/test has no image of 1 of the 2 classes: Cat"
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "cat ")
    with pytest.raises(KdbenchError, match=r"no counterpart in .*\(which has 'Cat' and 'cat', not 'cat '\)"):
        list_files("x", tmp_path)


@pytest.mark.parametrize("name", ["TEST", "valid", "Validation", "val"])
def test_parts_have_many_names(tmp_path, name):
    plant(tmp_path, ["TRAIN/a/1.png", "TRAIN/b/2.png", f"{name}/a/3.png", f"{name}/b/3.png"])
    assert list_files("x", tmp_path).parts == (tmp_path / "TRAIN", tmp_path / name)
    assert notes(tmp_path) == []


def test_two_spellings_of_a_part_are_refused(tmp_path):
    plant(tmp_path, ["train/a/1.png", "Train/a/2.png", "test/a/3.png"])
    with pytest.raises(KdbenchError, match="has both Train and train; put their images into one folder"):
        list_files("x", tmp_path)


def test_images_that_are_in_no_class_folder_are_counted(tmp_path):
    plant(tmp_path, ["train/a/1.png", "test/2.png", "test/3.png"])
    with pytest.raises(KdbenchError, match="test holds no images in class folders, though 2 are right in it"):
        list_files("x", tmp_path)


def test_a_test_part_without_classes_is_left_for_the_next(tmp_path):
    """ImageNet's own test images have no labels."""
    plant(tmp_path, ["train/a/1.png", "train/b/2.png", "test/3.png", "test/images/4.png", "val/a/5.png"])
    assert list_files("x", tmp_path).parts[1] == tmp_path / "val"
    assert notes(tmp_path)[0] == f"{tmp_path}/val is evaluated on; test beside it is not used"


# --- links, and files that are none ---


def test_links_are_followed(tmp_path):
    plant(tmp_path / "there", ["a/1.png"])
    plant(tmp_path / "here", ["train/b/2.png", "test/b/3.png"])
    (tmp_path / "here" / "train" / "a").symlink_to(tmp_path / "there" / "a")
    assert [Path(file).name for file, _ in list_files("x", tmp_path / "here").train] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("link", "target", "words"),
    [
        ("train/c", "nowhere", "train/c cannot be read"),
        ("train/a/c.png", "nowhere", r"train/a/c\.png cannot be read"),
        ("train/a/c", "..", "train/a/c is a link to a folder that holds it"),
    ],
)
def test_wrong_links_are_named(tmp_path, link, target, words):
    plant(tmp_path, ["train/a/1.png", "test/a/2.png"])
    (tmp_path / link).symlink_to(target)
    for load in (load_folder, lambda name, root: list_images(name, root, SIDE)):
        with pytest.raises(KdbenchError, match=words):
            load("x", tmp_path)


def test_an_empty_file_is_named_before_anything_is_trained(tmp_path):
    plant(tmp_path, ["train/a/1.png", "test/a/2.png"])
    (tmp_path / "train" / "a" / "3.png").touch()
    for load in (load_folder, lambda name, root: list_images(name, root, SIDE)):
        with pytest.raises(KdbenchError, match=r"train/a/3\.png has no bytes"):
            load("x", tmp_path)


def test_a_class_of_other_files_says_what_they_are(tmp_path):
    plant(tmp_path, ["train/a/1.png", "train/b/2.heic", "train/b/3.heic", "test/a/2.png"])
    with pytest.raises(KdbenchError, match=r"train/b holds no image that is read, but \.heic 2;"):
        list_files("x", tmp_path)


# --- Tiny-ImageNet ---


def moved(root: Path, place: str) -> None:
    """Sort the validation images into folders."""
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split()[:2]
        save(read_image(root / "val" / "images" / name), root / "val" / place.format(wnid) / name)
        (root / "val" / "images" / name).unlink()


@pytest.mark.parametrize("annotated", [True, False])
@pytest.mark.parametrize("place", ["{}", "{}/images", "images/{}"])
def test_sorted_validation_images_are_the_same_set(tmp_path, place, annotated):
    root = write_tiny_imagenet(tmp_path / "tiny")
    want = load_folder("x", root).id
    moved(root, place)
    if not annotated:
        (root / "val" / "val_annotations.txt").unlink()
        if place == "images/{}":
            with pytest.raises(
                KdbenchError, match=r"neither test nor val of .* has a folder that is named as a class"
            ):
                load_folder("x", root)
            return
        os.rmdir(root / "val" / "images")
    assert load_folder("x", root).id == want


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path, encoding):
    root = write_tiny_imagenet(tmp_path / "tiny")
    want = load_folder("x", root)
    for file in (root / "wnids.txt", root / "words.txt", root / "val" / "val_annotations.txt"):
        file.write_text("n01\tant, emmet\nn10\tcat\n" if "words" in file.name else file.read_text(), encoding)
    found = load_folder("x", root)
    assert (found.id, found.class_names) == (want.id, want.class_names)


def test_tiny_imagenet_streams_by_its_annotations(tmp_path):
    root = write_tiny_imagenet(tmp_path / "tiny")
    files = list_files("x", root)
    found = list_images("x", root, 6, workers=0)
    for part, want in ((found.train, files.train), (found.test, files.test)):
        assert {(str(part.path(row)), int(part.targets[row])) for row in range(len(part))} == set(want)
    text = (root / "val" / "val_annotations.txt").read_text()
    (root / "val" / "val_annotations.txt").write_text(text.replace("val_4.JPEG\tn02", "val_4.JPEG\tn01"))
    assert list_images("x", root, 6, workers=0).id != found.id  # a label is no part of the file's place


def test_more_than_8_bits_a_channel_are_refused_in_colour_too(tmp_path):
    """Pillow opens such files as RGB and keeps the high bytes."""
    rows = b"".join(b"\0" + b"\x0f\xff" * 3 * 4 for _ in range(4))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "deep.png").write_bytes(png)
    (tmp_path / "deep.ppm").write_bytes(b"P6 4 4 65535\n" + b"\x0f\xff" * 3 * 16)
    (tmp_path / "plain.ppm").write_bytes(b"P6 4 4 255\n" + b"\x0f" * 3 * 16)
    for name in ("deep.png", "deep.ppm"):
        with pytest.raises(KdbenchError, match="more than 8 bits per channel"):
            read_image(tmp_path / name)
    assert (read_image(tmp_path / "plain.ppm") == 15).all()


def test_streamed_files_without_compression_are_known_by_their_bytes(tmp_path):
    """They are all of one length, whatever they show."""
    ids = set()
    for level in (0, 1):
        for part, label in itertools.product(("train", "test"), "ab"):
            place = tmp_path / "photos" / part / label
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 6, 3), 40 * level, np.uint8)).save(place / "0.bmp")
        ids.add(list_images("photos", tmp_path / "photos", 6).id)
    assert len(ids) == 2


def test_folders_of_pixels_in_0_to_1_are_told_from_the_cache_too(tmp_path):
    for part, label in itertools.product(("train", "test"), "ab"):
        place = tmp_path / "photos" / part / label
        place.mkdir(parents=True, exist_ok=True)
        top = 1 if part == "train" else 200
        Image.fromarray(np.full((6, 6, 3), top, np.uint8)).save(place / "0.png")
    for _ in range(2):
        notes = load_folder("photos", tmp_path / "photos").notes
        assert [note for note in notes if "no pixel of x_train is above 1" in note]
