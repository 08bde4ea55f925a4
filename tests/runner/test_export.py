"""What `kdbench export` hands out: a file that the printed words load, and that is the student of the row."""

import json

import pytest
import safetensors
import torch

from kdbench.data.augment import plain
from kdbench.errors import KdbenchError
from kdbench.metrics import top_k
from kdbench.results import store
from kdbench.runner import run as driver
from kdbench.runner.export import export
from kdbench.train.callbacks import Progress
from kdbench.utils.state_dicts import load_weights, save_weights
from tests.support.cli_process import kdbench
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
    code = "\n".join(lines[lines.index("import timm, torch") :])
    scope = {"images": images}
    with torch.no_grad():
        exec(code, scope)
    return top_k(scope["logits"], targets, 1), code


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
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
    assert "num_classes=4" in code
    assert "images [B, 3, 8, 8] in 0..1" in code
    assert "[0.4, 0.4, 0.4], [0.3, 0.3, 0.3]" in code


def test_the_file_says_of_itself_how_it_is_built(lab, results):
    file = lab.folder / "out.safetensors"
    export(record(results)["cell_id"], file, results)
    with safetensors.safe_open(file, "pt") as opened:
        told = {key: json.loads(value) for key, value in opened.metadata().items()}
    assert told == {
        "arch": "resnet8", "args": {"widths": [4, 4, 8, 8]}, "num_classes": 4, "size": 8,
        "mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3], "whole": True,
    }  # fmt: skip


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
    with pytest.raises(KdbenchError, match=r"no cell in .* begins with 'zzz'; the ids are in .*/\*\.csv"):
        export("zzz", out, results)
    with pytest.raises(KdbenchError, match=r"o\.onnx must end in \.safetensors or \.pth"):
        export(row["cell_id"], lab.folder / "o.onnx", results)
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
