"""The checks themselves: a good plug-in passes all; a plug-in with one fault fails the check that is meant for it."""

import pytest

from kdbench import contract
from kdbench.contract.phase_checks import thresholds
from kdbench.contract.static_checks import FAKES_GPU
from kdbench.errors import KdbenchError
from tests.support.faulty_plugins import FAULTS, GOOD, NEEDS, NOISE, before, tag, write


def test_a_good_plug_in_passes_everything(tmp_path, scratch_registry):
    text, passed = contract.report(str(write(tmp_path)))
    assert passed, text
    assert "FAIL" not in text
    assert f"{len(contract.CHECKS)} of {len(contract.CHECKS)} checks passed" in text
    assert all(name in text for name in contract.CHECKS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(tmp_path, scratch_registry, fault):
    if fault == "a tensor of the CPU" and not FAKES_GPU:
        pytest.skip("this torch cannot fake a GPU")
    check, part, changes = FAULTS[fault]
    (subject,) = contract.subjects(str(write(tmp_path, *changes)))
    reason = contract.run(contract.CHECKS[check], subject)
    assert reason is not None, f"{fault!r} passes {check}"
    assert part in reason, reason


@pytest.mark.parametrize("check", ["sample_order", "class_order", "coupled", "pure", "no_sync"])
def test_noise_on_samples_and_classes_is_no_fault(tmp_path, scratch_registry, check):
    (subject,) = contract.subjects(str(write(tmp_path, NOISE)))
    assert contract.run(contract.CHECKS[check], subject) is None


def test_only_phases_sees_what_a_change_of_phase_forgets(tmp_path, scratch_registry):
    """The other loop checks train four epochs of 60 reference epochs: all behind the change at 30."""
    _, _, changes = FAULTS["a phase kept outside the buffers"]
    (subject,) = contract.subjects(str(write(tmp_path, *changes)))
    failed = [name for name in contract.BY_GROUP["loop"] if contract.run(contract.CHECKS[name], subject)]
    assert failed == ["phases"]


@pytest.mark.parametrize(
    "name", ["ab", *(pytest.param(each, marks=pytest.mark.slow) for each in ("ft", "fsp"))]
)
def test_phases_sees_momentum_of_only_some_parameters(scratch_registry, monkeypatch, name):
    monkeypatch.setattr("kdbench.train.optimizers.momentum_from_zero", lambda optimizer: None)
    (subject,) = contract.subjects(name)
    reason = contract.run(contract.CHECKS["phases"], subject)
    assert reason is not None
    assert reason.startswith(
        f"across batch.epoch 30 the cell ended as error: {name} failed in a training step"
    )


def test_the_thresholds_of_an_epoch_are_found(tmp_path, scratch_registry):
    """Through arithmetic, in one another's branches, in update; not those outside of the schedule."""
    loss = before(
        "if 1 - (batch.epoch - 1) / 239 < 0.5: ce = ce * 2",
        "if 2 * batch.epoch >= 80: ce = ce if batch.epoch > 200 else ce * min(batch.epoch / 50, 1.0)",
        "ce = ce * max(0.5, batch.epoch * torch.ones(()).double()) if batch.epoch > 900 else ce",
    )
    update = ("modules.count.add_(1)", "modules.count.add_(float(7 == batch.epoch))")
    contract.subjects(str(write(tmp_path, loss, update)))
    assert thresholds(scratch_registry.create("mine", {})) == pytest.approx([7, 40, 50, 120.5, 200])


def test_a_method_that_cannot_be_planned_fails_alone(tmp_path, scratch_registry):
    text, passed = contract.report(str(write(tmp_path, (NEEDS, "Needs(views=('weak', 'third'))"))))
    assert not passed
    (subject,) = contract.subjects(str(tmp_path / "mine.py"))
    reason = contract.run(contract.CHECKS["learns"], subject)
    assert reason == "no cell can be planned: mine needs the view 'third'; add [views.third] to suite toy"
    assert subject.lab.together["kd"].row["status"] == "ok"
    assert max(map(len, text.splitlines()[1:])) <= 100


def test_every_check_can_fail():
    assert set(contract.CHECKS) == {check for check, _, _ in FAULTS.values()}


def test_every_check_states_its_fact_in_one_line():
    for name, check in contract.CHECKS.items():
        assert check.__doc__, name
        assert "\n" not in check.__doc__.strip(), name


def test_an_alias_may_be_parallel(tmp_path, scratch_registry):
    _, _, changes = FAULTS["kd again"]
    (subject,) = contract.subjects(str(write(tmp_path, *changes, tag('alias_of: ClassVar = "kd"'))))
    assert contract.run(contract.CHECKS["distinct"], subject) is None


@pytest.mark.parametrize(
    ("line", "reason"), [("1 / 0", "ZeroDivisionError"), ("import no_such_module", "no_such_module")]
)
def test_a_file_that_fails_at_import_is_a_failed_check(tmp_path, scratch_registry, line, reason):
    file = tmp_path / "mine.py"
    file.write_text(GOOD + line + "\n")
    text, passed = contract.report(str(file))
    assert not passed
    assert reason in text
    assert "0 of 1 checks passed" in text


def test_a_broken_file_in_a_folder_fails_beside_a_whole_one(tmp_path, scratch_registry, monkeypatch):
    write(tmp_path)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    scratch_registry.load(tmp_path)
    two = {name: scratch_registry._entries[name] for name in ("mine", "broken")}
    monkeypatch.setattr(contract, "run", lambda check, subject: None)
    monkeypatch.setattr(scratch_registry, "entries", lambda: list(two.values()))
    text, passed = contract.report(None, tmp_path)
    assert not passed
    assert "broken imports: " in text
    assert "ZeroDivisionError" in text
    table = text.splitlines()[:4]
    assert max(map(len, table)) <= 80
    assert [line.split()[0] for line in table[1:]] == ["method", "mine", "broken"]
    assert table[2].count(".") == len(contract.CHECKS)
    assert table[3].count("X") == len(contract.CHECKS)


def test_a_shipped_file_is_the_shipped_method(scratch_registry):
    (subject,) = contract.subjects(str(scratch_registry._entries["dkd"].origin))
    assert subject.name == "dkd"
    assert subject.cls is scratch_registry.get("dkd")


def test_wrong_names_are_one_sentence(tmp_path, scratch_registry):
    with pytest.raises(KdbenchError, match=r"unknown method 'dkdd'.*did you mean 'dkd'"):
        contract.report("dkdd")
    with pytest.raises(KdbenchError, match="there is no file"):
        contract.report(str(tmp_path / "nothing.py"))
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(KdbenchError, match="registers no method"):
        contract.report(str(tmp_path / "empty.py"))
