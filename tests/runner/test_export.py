"""What `kdbench export` hands out: a file that the printed words load, and that is the student of the row."""

import json
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
import safetensors
import torch

from kdbench.data.augment import plain
from kdbench.errors import KdbenchError
from kdbench.metrics import top_k
from kdbench.models import pretrained
from kdbench.results import store
from kdbench.runner import run as driver
from kdbench.runner.export import export
from kdbench.suites import ModelSpec
from kdbench.train.callbacks import Progress
from kdbench.utils.state_dicts import load_weights, save_weights
from tests.support.cli_process import kdbench, refused
from tests.support.local_networks import MEAN, network, write
from tests.support.scenarios import run

VIT = (
    "student = { arch",
    'vit = { arch = "vit_tiny_patch16_224", args = { img_size = 8, patch_size = 4, embed_dim = 12, depth = 2, '
    "num_heads = 2 } }\nstudent = { arch",
)


@pytest.fixture
def results(lab):
    """Two finished cells: a network of kdbench's and one of timm's."""
    file = lab.suite_file(
        VIT, ('student = "student"', 'student = "student"\n[[pairs]]\nteacher = "teacher"\nstudent = "vit"')
    )
    folder = lab.folder / "results"
    outcome = driver.run(
        str(file), ["ce"], data_dir=lab.data, results=folder, device="cpu", progress=Progress()
    )
    assert list(outcome.rows["status"]) == ["ok", "ok"]
    return folder


def record(results, student="student"):
    rows = store.records(store.read(results / "tiny.csv"))
    return rows[rows["student"] == student].iloc[0]


def top1_by(words, images, targets):
    """Run the printed lines and measure their logits."""
    lines = words.split("\n")
    code = "\n".join(lines[lines.index("") :])
    scope = {"images": images}
    with torch.no_grad():
        exec(code, scope)
    return top_k(scope["logits"], targets, 1), code


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ""])
@pytest.mark.parametrize("student", ["student", "vit"])
def test_the_printed_lines_reach_the_recorded_accuracy(lab, results, student, suffix):
    row = record(results, student)
    file = lab.folder / f"out{suffix}"
    words = export(row["cell_id"], file, results)
    first = words.split("\n")[0]
    assert first == (f"{file}: {student} of {row['cell_id']} (ce, seed 0), top-1 {row['top1']:.2f} % on test")
    test = lab.split.evaluation
    top1, code = top1_by(words, plain(test.images), test.targets)
    assert top1 == pytest.approx(row["top1"], abs=1e-4)
    assert ("import kdbench.models" in code) == (student == "student")
    assert ("num_classes=4" in code) == bool(suffix)
    assert "images [B, 3, 8, 8] in 0..1" in code
    assert "[0.4, 0.4, 0.4], [0.3, 0.3, 0.3]" in code


def test_the_file_says_of_itself_how_it_is_built(lab, results):
    file = lab.folder / "out.safetensors"
    export(record(results)["cell_id"], file, results)
    with safetensors.safe_open(file, "pt") as opened:
        told = {key: json.loads(value) for key, value in opened.metadata().items()}
    assert told == {
        "arch": "resnet8", "args": {"widths": [4, 4, 8, 8]}, "num_classes": 4, "size": 8,
        "mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3], "whole": True, "class_names": ["0", "1", "2", "3"],
        "resize": {"shorter_side": 8, "crop": 8, "interpolation": "bicubic"}, "trained": told["trained"],
    }  # fmt: skip
    row = record(results)
    assert told["trained"]["cell_id"] == row["cell_id"]
    assert told["trained"]["top1"] == row["top1"]
    assert told["trained"]["recipe"]["lr"] == lab.suite.recipe.lr
    assert "teacher" not in told["trained"]


def test_a_student_that_is_a_part_comes_with_a_warning(lab, results):
    row = record(results)
    source = results / ".work" / "students" / f"{row['cell_id']}.safetensors"
    with safetensors.safe_open(source, "pt") as opened:
        told = {**opened.metadata(), "whole": "false"}
    save_weights(source, load_weights(source), told)
    assert "WARNING: ce deploys more than this network" in export(
        row["cell_id"], lab.folder / "o.pth", results
    )


def test_a_student_without_metadata_is_built_by_its_suite(lab, results):
    source = results / ".work" / "students" / f"{record(results)['cell_id']}.safetensors"
    save_weights(source, load_weights(source))
    with pytest.raises(KdbenchError, match="unknown suite 'tiny'"):
        export(source.stem, lab.folder / "o.pth", results)


def test_the_beginning_of_an_id_will_do_where_it_is_one_cells(lab, results):
    ids = sorted(store.read(results / "tiny.csv")["cell_id"])
    assert ids[0][:6] != ids[1][:6]
    assert ids[0] in export(ids[0][:6], lab.folder / "o.pth", results)
    with pytest.raises(KdbenchError, match=rf"'' begins 2 cell ids \({ids[0]}, {ids[1]}\); give more of it"):
        export("", lab.folder / "p.pth", results)


def test_what_cannot_be_handed_out_is_told_in_one_sentence(lab, results):
    row = record(results)
    out = lab.folder / "o.pth"
    with pytest.raises(
        KdbenchError, match=r"no cell in .* begins with 'zzz'; `kdbench status --cells` lists"
    ):
        export("zzz", out, results)
    with pytest.raises(KdbenchError, match=r"o\.bin must end in one of \.safetensors, \.pt, .*folder"):
        export(row["cell_id"], lab.folder / "o.bin", results)
    store.append(results / "tiny.csv", [run(suite="tiny", cell_id="feed", status="interrupted")])
    with pytest.raises(KdbenchError, match="the cell feed00000000 has no student: its status is interrupted"):
        export("feed", out, results)
    (results / ".work" / "students" / f"{row['cell_id']}.safetensors").unlink()
    with pytest.raises(KdbenchError, match=r"is not on this machine .*kdbench run --suite tiny .* --force"):
        export(row["cell_id"], out, results)
    assert not out.exists()


def test_a_file_that_is_there_is_never_replaced(lab, results):
    out = lab.folder / "o.pth"
    out.write_text("mine")
    done = kdbench("export", record(results)["cell_id"], "o.pth", cwd=lab.folder)
    assert (done.code, done.err) == (1, "kdbench: o.pth exists; name another file, or remove it first\n")
    assert out.read_text() == "mine"
    done = kdbench("export", record(results)["cell_id"], "p.pth", cwd=lab.folder)
    assert done.code == 0
    assert "timm.create_model('resnet8_cifar', num_classes=4, widths=[4, 4, 8, 8])" in done.out


# --- graphs ---


def graph(file):
    """What runs a graph, and the facts inside it."""
    if file.suffix == ".pt2":
        inside = {"kdbench.json": ""}
        return torch.export.load(file, extra_files=inside).module(), json.loads(inside["kdbench.json"])
    if file.suffix == ".torchscript":
        inside = {"kdbench.json": ""}
        return torch.jit.load(file, _extra_files=inside), json.loads(inside["kdbench.json"])
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs kdbench[export]")
    session = onnxruntime.InferenceSession(str(file))
    facts = {key: json.loads(v) for key, v in session.get_modelmeta().custom_metadata_map.items()}
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), facts


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "suffix", [pytest.param(".onnx", marks=pytest.mark.slow), pytest.param(".pt2"), ".torchscript"]
)
def test_a_graph_gives_the_recorded_accuracy_and_its_classes(lab, results, suffix):
    """From raw images in 0..1, of another number than it was traced on."""
    row, file = record(results), lab.folder / f"o{suffix}"
    if suffix == ".onnx":
        pytest.importorskip("onnxscript", reason="needs kdbench[export]")
    words = export(("ce", "teacher:student", 0), file, results)
    assert "normalised by the graph" in words
    run, facts = graph(file)
    test = lab.split.evaluation
    with torch.no_grad():
        assert top_k(run(plain(test.images)), test.targets, 1) == pytest.approx(row["top1"], abs=1e-4)
    assert facts["class_names"] == ["0", "1", "2", "3"]
    assert facts["trained"]["cell_id"] == row["cell_id"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_onnx_without_its_packages_is_one_sentence(lab, results, monkeypatch, package):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == package else SimpleNamespace())
    with pytest.raises(KdbenchError, match=rf"ONNX needs {package}, .*pip install 'kdbench\[export\]'"):
        export(("ce", "teacher:student", 0), lab.folder / "o.onnx", results)
    assert not list(lab.folder.glob("o.onnx*"))
    assert not list(lab.folder.glob(".export-*"))


def test_a_graph_with_other_logits_is_never_handed_out(lab, results, monkeypatch):
    class Wrong(torch.nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 4)

    monkeypatch.setattr(torch.jit, "load", lambda file: Wrong())
    file = lab.folder / "o.torchscript"
    with pytest.raises(KdbenchError, match="gives other logits than the network"):
        export(("ce", "teacher:student", 0), file, results)
    assert not file.exists()


# --- which cell ---


def test_a_cell_by_method_pair_and_seed(lab, results):
    row = record(results, "vit")
    for pair in ("teacher:vit", "teacher->vit"):
        out = lab.folder / f"{len(pair)}.pt"
        assert row["cell_id"] in export(("ce", pair, "0"), out, results, suite="tiny", split="test")
    for which in (("kd", "teacher:vit", 0), ("ce", "teacher:resnet8", 0), ("ce", "teacher:vit", 1)):
        with pytest.raises(KdbenchError, match=r"no cell in .* is .*, seed \d; `kdbench status --cells`"):
            export(which, lab.folder / "p.pt", results)
    with pytest.raises(KdbenchError, match="a seed is a whole number, got 'zero'"):
        export(("ce", "teacher:vit", "zero"), lab.folder / "p.pt", results)
    with pytest.raises(KdbenchError, match=r"or \(method, pair, seed\), got \('ce', 0\)"):
        export(("ce", 0), lab.folder / "p.pt", results)
    with pytest.raises(KdbenchError, match=r"no results for suite 'other' in .*; it has tiny"):
        export(("ce", "teacher:vit", 0), lab.folder / "p.pt", results, suite="other")


def test_several_cells_of_one_name_are_listed_with_their_ids(lab, results):
    twin = run(
        suite="tiny", method="ce", pair=("", "vit"), cell_id="feed00000000", split="holdout", epochs_done=9
    )
    store.append(results / "tiny.csv", [twin])
    with pytest.raises(KdbenchError) as caught:
        export(("ce", "teacher:vit", 0), lab.folder / "p.pt", results)
    assert "2 cells are ce, teacher:vit, seed 0; type the id of one: " in str(caught.value)
    assert "feed00000000 (ce, vit, seed 0, suite tiny, holdout, 9 epochs)" in str(caught.value)
    assert export(("ce", "teacher:vit", 0), lab.folder / "p.pt", results, split="test")


# --- folders, cards, the hub ---


def test_a_folder_is_a_network_by_local_dir(lab, results):
    """kdbench takes its own student as a pretrained network, with its normalisation and all tensors."""
    export(("ce", "teacher:student", 0), lab.folder / "net", results)
    assert {file.name for file in (lab.folder / "net").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    spec = pretrained.obtain(ModelSpec(f"local-dir:{lab.folder / 'net'}"), lab.folder / "place", print)
    assert (spec.arch, spec.args) == ("resnet8", {"widths": [4, 4, 8, 8]})
    assert (spec.weights.classes, spec.weights.mean) == (4, (0.4, 0.4, 0.4))
    state = pretrained.load(spec, 4, lab.folder / "place").state_dict()
    saved = load_weights(results / ".work" / "students" / f"{record(results)['cell_id']}.safetensors")
    assert all(torch.equal(state[key], saved[key]) for key in saved)
    config = json.loads((lab.folder / "net" / "config.json").read_text())
    assert config["label_names"] == ["0", "1", "2", "3"]


def test_the_card_has_row_recipe_classes_and_licences(lab, results):
    row = record(results)
    export(row["cell_id"], lab.folder / "o.pt", results)
    text = (lab.folder / "o.pt.md").read_text()
    assert text.startswith("---\nlibrary_name: timm\n")
    assert f"| top-1, percent (tiny, test split) | {row['top1']:.2f} |" in text
    assert f"| recipe: lr | {lab.suite.recipe.lr} |" in text
    assert "0: 0, 1: 1, 2: 2, 3: 3" in text
    assert "Shorter side resized to 8 pixels (bicubic), centre crop of 8 x 8" in text
    assert "These weights were trained on tiny: the licence" in text
    assert f"| cell_id | {row['cell_id']} |" in text
    assert str(lab.folder) not in text


class Hub:
    """A client that keeps what is uploaded, or is refused."""

    def __init__(self, refusal=None):
        self.refusal, self.made, self.files, self.message = refusal, [], {}, ""

    def __call__(self):
        return self

    def create_repo(self, name, private, exist_ok):
        if self.refusal:
            raise self.refusal
        self.made.append((name, private, exist_ok))
        return f"https://hub/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.files = {file.name: file.read_bytes() for file in folder_path.iterdir()}
        self.message = commit_message


def test_a_student_is_pushed_as_the_folder_that_timm_reads(lab, results, monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    row = record(results)
    words = export(("ce", "teacher:student", 0), None, results, push="me/net.v1", private=True)
    assert "pushed to https://hub/me/net.v1" in words
    assert hub.made == [("me/net.v1", True, True)]
    assert set(hub.files) == {"config.json", "model.safetensors", "README.md"}
    assert b"timm.create_model('hf-hub:me/net.v1', pretrained=True)" in hub.files["README.md"]
    assert (
        hub.message
        == f"me/net.v1: student of {row['cell_id']} (ce, seed 0), top-1 {row['top1']:.2f} % on test"
    )


def test_what_a_hub_refuses_is_one_sentence_and_the_file_stays(lab, results, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub(OSError("401 Client Error.\nMore")))
    with pytest.raises(KdbenchError) as caught:
        export(("ce", "teacher:student", 0), lab.folder / "o.pt", results, push="me/net")
    assert str(caught.value).startswith(
        "the student could not be pushed to me/net: 401 Client Error; log in with"
    )
    assert (lab.folder / "o.pt").is_file()
    with pytest.raises(KdbenchError, match="a repository of the hub is written OWNER/NAME, got 'net'"):
        export(("ce", "teacher:student", 0), None, results, push="net")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        KdbenchError, match=r"--push needs huggingface_hub; type `pip install 'kdbench\[hub\]'`"
    ):
        export(("ce", "teacher:student", 0), None, results, push="me/net")


def test_a_started_student_says_where_it_started(lab, tmp_path):
    name = write(tmp_path / "net6", network("test_resnet", 6), license="apache-2.0")
    outcome = driver.run(
        str(lab.suite_file()), ["kd"], pairs=f"{name}->{name}", data_dir=lab.data, epochs=1,
        results=lab.folder / "results", device="cpu", progress=Progress(),
    )  # fmt: skip
    row = outcome.rows.iloc[0]
    export(row["cell_id"], lab.folder / "out", lab.folder / "results")
    text = (lab.folder / "out" / "README.md").read_text()
    assert "starting from the weights `local-dir:net6`" in text
    assert "They start from `local-dir:net6`, whose licence is: apache-2.0." in text
    assert "Their teacher starts from `local-dir:net6`" in text
    config = json.loads((lab.folder / "out" / "config.json").read_text())
    assert config["pretrained_cfg"]["mean"] == list(MEAN)


def test_the_command_line_takes_an_id_or_three_words(lab, results):
    row = record(results)
    done = kdbench("export", "ce", "teacher:student", "0", "o.pt", cwd=lab.folder)
    assert (done.code, done.out.splitlines()[0]) == (
        0,
        f"o.pt: student of {row['cell_id']} (ce, seed 0), top-1 {row['top1']:.2f} % on test",
    )
    for words in ([], ["ce"], ["ce", "teacher:student", "0"], ["a", "b", "c", "d", "e"]):
        refused(kdbench("export", *words, cwd=lab.folder), "takes CELL FILE, or METHOD PAIR SEED FILE")
    refused(kdbench("export", row["cell_id"], "--push", "net", cwd=lab.folder), "OWNER/NAME")
    refused(kdbench("export", row["cell_id"], "p.pt", "--private", cwd=lab.folder), "--private is for")
