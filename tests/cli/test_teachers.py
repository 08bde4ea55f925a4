"""`kdbench teachers list`: every teacher with its hash, accuracy and file."""

from __future__ import annotations

import torch

from kdbench import models
from kdbench.cli import teachers
from kdbench.runner.teachers import trained_path
from kdbench.teachers import catalog
from kdbench.utils.state_dicts import save_weights


def test_teachers_lists_hash_accuracy_and_file(lab):
    given = lab.folder / "given"
    given.mkdir()
    torch.save(lab.teacher.net(lab.suite.dataset).model.state_dict(), given / "teacher.pth")
    claim = ("[[pairs]]", "[teachers.teacher]\ntop1 = 60.0\n[[pairs]]")
    options = {
        "suite": str(lab.suite_file(claim)), "data_dir": lab.data, "results": lab.folder / "r", "device": "cpu",
    }  # fmt: skip
    head, line, way, _ = teachers.teachers(options).splitlines()
    assert head.split() == ["teacher", "hash", "top-1", "expected"]
    assert line.split() == ["teacher", "–", "–", "60.00"]
    assert way.strip() == "missing: type `kdbench teachers train` or `kdbench teachers import FILE`"
    _, line, file, last = teachers.teachers({**options, "teacher_weights": given}).splitlines()
    star, name, hashed, top1, expected = line.split()
    assert (star, name, hashed, expected) == ("*", "teacher", lab.teacher.id, "60.00")
    assert file == f"     {given / 'teacher.pth'}"
    assert 0 <= float(top1) <= 100
    assert last == "* is what `kdbench run` uses"


def test_imported_teachers_are_listed_and_the_used_one_marked(lab):
    """One that is no teacher of the suite too, and the one trained here that an import has replaced."""
    folder = lab.folder / "r"
    workspace = lab.open(results=folder)
    spec = lab.suite.models
    weights = {
        name: models.create(spec[name].arch, 4, **spec[name].args).state_dict()
        for name in ("teacher", "student")
    }
    save_weights(trained_path(workspace, "teacher"), weights["teacher"])
    for name, state in (
        ("teacher", lab.teacher.net(lab.suite.dataset).model.state_dict()),
        ("student", weights["student"]),
    ):
        path = catalog.folder(workspace.paths.work) / f"{name}-imported.safetensors"
        save_weights(path, state)
        catalog.assign(workspace.paths.work, "tiny", name, spec[name], path, workspace.data_id)
    options = {"suite": str(lab.suite_file()), "data_dir": lab.data, "results": folder, "device": "cpu"}
    lines = teachers.teachers(options).splitlines()[1:-1]
    assert [line.split()[:2] for line in lines[0::2] if line[0] == "*"] == [
        ["*", "teacher"],
        ["*", "student"],
    ]
    assert [line.split()[0] for line in lines[0::2] if line[0] != "*"] == ["teacher"]
    assert [file.strip().rsplit("/")[-1] for file in lines[1::2]] == [
        "teacher-imported.safetensors", trained_path(workspace, "teacher").name, "student-imported.safetensors",
    ]  # fmt: skip
