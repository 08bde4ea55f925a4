"""Downloads from a server on this machine: cut, continued, wrong, not there."""

import dataclasses
import hashlib
import shutil
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision

from kdbench.data import catalog, download
from kdbench.data.catalog import CATALOG, archive_of
from kdbench.data.sources import load_dataset
from kdbench.errors import KdbenchError
from tests.support.image_files import write_npz, write_tiny_imagenet, write_torchvision

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """Serves ``content`` at any path; ``asked`` are the Range headers that came.

    ``cuts`` are numbers of bytes after which the next answers break off; ``ranges`` whether Range is understood.
    """

    def __init__(self) -> None:
        self.content, self.cuts, self.ranges, self.asked = CONTENT, [], True, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers["Range"]
                server.asked.append(wanted)
                start = (
                    int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
                )
                body = server.content[start:]
                if wanted and server.ranges and not body:
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

            def log_message(self, *args):
                """Nothing on stderr."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("KDBENCH_DATA", raising=False)
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "home"))


def md5(content: bytes = CONTENT) -> str:
    return hashlib.md5(content).hexdigest()


class TestDownload:
    def get(self, server, path: Path, sum_: str | None = None) -> None:
        download.download(f"{server.url}/file.bin", path, sum_ or md5())

    def test_a_file(self, server, tmp_path):
        self.get(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        assert server.asked == [None]
        assert [file.name for file in tmp_path.iterdir()] == ["file.bin"]

    def test_one_that_is_cut_goes_on_at_once(self, server, tmp_path):
        server.cuts = [100_000, 50_000]
        self.get(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        assert server.asked == [None, "bytes=100000-", "bytes=150000-"]

    def test_one_that_was_left_is_continued_the_next_time(self, server, tmp_path):
        server.cuts = [100_000, 0]  # the second try brings nothing: given up
        with pytest.raises(ConnectionError, match="stops sending"):
            self.get(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:100_000]
        assert not (tmp_path / "file.bin").exists()
        server.asked.clear()
        self.get(server, tmp_path / "file.bin")
        assert server.asked == ["bytes=100000-"]
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    def test_a_part_that_is_the_whole_is_only_checked(self, server, tmp_path):
        (tmp_path / "file.bin.part").write_bytes(CONTENT)
        self.get(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    def test_a_server_that_knows_no_range_starts_anew(self, server, tmp_path):
        server.ranges, server.cuts = False, [100_000]
        self.get(server, tmp_path / "file.bin")
        assert server.asked == [None, "bytes=100000-"]
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    @pytest.mark.parametrize("left", [b"", b"of another file"])
    def test_wrong_bytes_are_told_and_removed(self, server, tmp_path, left):
        if left:
            (tmp_path / "file.bin.part").write_bytes(left)
        else:
            server.content = b"an error page"
        with pytest.raises(KdbenchError, match=f"md5 .* instead of {md5()}; it is removed"):
            self.get(server, tmp_path / "file.bin")
        assert not list(tmp_path.iterdir())

    def test_a_server_that_is_not_there_leaves_no_part(self, tmp_path):
        gone = Server()
        gone.close()
        with pytest.raises(OSError, match="refused"):
            self.get(gone, tmp_path / "file.bin")
        assert not list(tmp_path.iterdir())


@pytest.fixture
def published_as(monkeypatch):
    """Have the catalog say another archive of a data set."""

    def replace(name: str, **changes) -> None:
        known = CATALOG[name]
        archive = dataclasses.replace(known.archive, **changes)
        changed = {name: dataclasses.replace(known, archive=archive)}
        monkeypatch.setattr(catalog, "CATALOG", {**CATALOG, **changed})

    return replace


@pytest.fixture
def tiny(server, tmp_path, published_as):
    """A made-up Tiny-ImageNet of three classes, zipped on the server."""
    write_tiny_imagenet(tmp_path / "source" / "tiny-imagenet-200")
    file = shutil.make_archive(str(tmp_path / "tiny-imagenet-200"), "zip", tmp_path / "source")
    server.content = Path(file).read_bytes()
    published_as("tiny-imagenet", url=f"{server.url}/tiny-imagenet-200.zip", md5=md5(server.content))
    return Path(file)


class TestSources:
    def test_tiny_imagenet_comes_whole(self, server, tiny, tmp_path, capsys):
        server.cuts = [1000]
        data = load_dataset("tiny-imagenet", None, 3)
        assert data.id == load_dataset("mine", write_npz(tmp_path)).id
        assert len(server.asked) == 2
        assert load_dataset("tiny-imagenet", None, 3).id == data.id
        assert len(server.asked) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "downloading http" in said.err
        left = {file.name for file in (tmp_path / "home").iterdir()}
        assert left == {"tiny-imagenet-200", "tiny-imagenet-200.zip", "decoded"}

    def test_an_archive_put_by_hand_is_unpacked(self, server, tiny, tmp_path):
        folder = tmp_path / "data"
        folder.mkdir()
        shutil.copy(tiny, folder)
        assert len(load_dataset("tiny-imagenet", folder, 3).train) == 24
        assert server.asked == []

    def test_a_damaged_archive_put_by_hand_is_named_and_kept(self, server, tiny, tmp_path):
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / tiny.name).write_bytes(b"cut")
        with pytest.raises(KdbenchError, match=f"{tiny.name} is damaged .*remove it"):
            load_dataset("tiny-imagenet", folder, 3)
        assert (folder / tiny.name).read_bytes() == b"cut"

    def test_a_death_while_unpacking_leaves_no_half_set(self, server, tiny, tmp_path, monkeypatch):
        real = shutil.unpack_archive

        def dies(path, to, **options):
            real(path, to, **options)
            shutil.rmtree(to / "tiny-imagenet-200" / "val")
            raise KeyboardInterrupt

        monkeypatch.setattr(shutil, "unpack_archive", dies)
        with pytest.raises(KeyboardInterrupt):
            load_dataset("tiny-imagenet", None, 3)
        assert not (tmp_path / "home" / "tiny-imagenet-200").exists()
        monkeypatch.setattr(shutil, "unpack_archive", real)
        assert len(load_dataset("tiny-imagenet", None, 3).train) == 24

    def test_cifar_with_torchvisions_own_checksums(self, server, tmp_path, monkeypatch, published_as):
        content = write_torchvision(tmp_path / "source", monkeypatch)
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "source" / "cifar-10-batches-py", "cifar-10-batches-py")
        server.content = (tmp_path / "cifar-10-python.tar.gz").read_bytes()
        url = f"{server.url}/cifar-10-python.tar.gz"
        published_as("cifar10", url=url)
        with pytest.raises(KdbenchError, match=torchvision.datasets.CIFAR10.tgz_md5):
            load_dataset("cifar10", None)
        published_as("cifar10", url=url, md5=md5(server.content))
        data = load_dataset("cifar10", None)
        assert data.id == load_dataset("cifar10", write_npz(tmp_path, "cifar10", **content)).id
        assert data.class_names[9] == "class9"

    @pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet"])
    def test_offline_names_file_url_and_place(self, name, monkeypatch, tmp_path):
        monkeypatch.setattr(download.urllib.request, "urlopen", self.offline)
        archive = archive_of(name)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "readme.txt").touch()
        for data_dir, place in ((None, tmp_path / "home"), (tmp_path / "data", tmp_path / "data")):
            with pytest.raises(KdbenchError) as caught:
                load_dataset(name, data_dir)
            message = str(caught.value)
            words = (f"{name}.npz", archive.inside, "train/<class>", "no route", archive.url, "--data-dir")
            assert all(word in message for word in words), message
            assert f"put {archive.filename} into {place}" in message
            assert "\n" not in message

    def offline(self, *args, **kwargs):
        raise download.urllib.error.URLError("no route")

    def test_a_place_that_cannot_be_written(self, monkeypatch, tmp_path):
        (tmp_path / "file").touch()
        monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "file" / "below"))
        with pytest.raises(KdbenchError, match=r"cannot be downloaded .*Not a directory"):
            load_dataset("cifar10", None)
