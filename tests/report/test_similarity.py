"""What the details files say: calibration, and how alike student and teacher predict class by class."""

import numpy as np
import pytest
import torch

from kdbench import metrics
from kdbench.report.figures import calibration, class_similarity
from kdbench.report.figures.sheet import SCREEN
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.figures import FOOTER, keep, texts
from tests.support.scenarios import PAIRS, A, boards, run, runs


def test_the_diagrams_ece_is_that_of_the_results(tmp_path):
    torch.manual_seed(0)
    rows = runs("kd", 70.0, 71.0)
    for row in rows:
        logits, targets = 2 * torch.randn(200, 5), torch.randint(5, (200,))
        row["ece"] = metrics.quality(logits, targets)["ece"]
        keep(tmp_path / "d", row, **metrics.details(logits, targets, logits))
    store.append(tmp_path / "s.csv", rows)
    (table,) = tables(store.read(tmp_path / "s.csv"))
    frame = calibration.frame(table, [tmp_path / "d"])
    assert frame["ece"].unique() == pytest.approx([np.mean([row["ece"] for row in rows])])
    assert frame["ece_std"].unique() == pytest.approx([np.std([row["ece"] for row in rows], ddof=1)])
    assert frame["n"].sum() == 400
    assert (frame["runs"] == 2).all()
    drawn = texts(calibration.draw(frame, SCREEN, "kd"))
    assert f"kd\nECE {frame['ece'].iloc[0]:.1f} ± {frame['ece_std'].iloc[0]:.1f}" in drawn


def test_bins_are_pooled_over_seeds(tmp_path):
    rows = runs("kd", 70.0, 71.0)
    for row, right in zip(rows, (6.0, 9.0), strict=True):
        bins = np.zeros((15, 3))
        bins[14] = 10.0, 9.5, right
        keep(tmp_path / "d", row, calibration=bins)
    store.append(tmp_path / "s.csv", rows)
    (table,) = tables(store.read(tmp_path / "s.csv"))
    (line,) = calibration.frame(table, [tmp_path / "d"]).to_dict("records")
    assert (line["bin"], line["n"], line["confidence"], line["accuracy"]) == (14, 20, 95.0, 75.0)
    assert line["ece"] == pytest.approx(
        (35 + 5) / 2
    )  # each run's own, not that of the pool: 20 as well, here


STUDENT, TEACHER = np.array([[0.8, 0.2], [0.4, 0.6]]), np.array([[1.0, 0.0], [0.0, 1.0]])


def test_similarity_by_hand_for_two_classes():
    cosine = class_similarity.cosines(STUDENT, TEACHER)
    lengths = np.sqrt([0.68, 0.52])
    assert cosine == pytest.approx(np.array([[0.8, 0.2], [0.4, 0.6]]) / lengths[:, None])
    found = class_similarity.scalars(STUDENT, cosine)
    assert found["same"] == pytest.approx((0.8 / lengths[0] + 0.6 / lengths[1]) / 2)
    assert found["other"] == pytest.approx((0.2 / lengths[0] + 0.4 / lengths[1]) / 2)
    assert found["mass"] == pytest.approx(30.0)  # 1 - (0.8 + 0.6) / 2


def test_similarity_of_three_classes_one_of_them_without_samples():
    student = np.array([[1.0, 0.0, 0.0], [0.6, 0.0, 0.8], [0.0, 0.0, 0.0]])
    teacher = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    cosine = class_similarity.cosines(student, teacher)
    assert cosine[:2, :2] == pytest.approx(np.array([[1.0, 0.0], [0.6, 0.8]]))
    assert np.isnan(cosine[2]).all()
    assert np.isnan(cosine[:, 2]).all()
    found = class_similarity.scalars(student, cosine)
    assert [found[k] for k in ("same", "other", "mass")] == pytest.approx([0.9, 0.3, 50.0])


def test_a_student_that_is_its_teacher_scores_as_the_teacher():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])
    cosine = class_similarity.cosines(p, p)
    assert class_similarity.scalars(p, cosine)["same"] == pytest.approx(1.0)
    assert cosine == pytest.approx(cosine.T)


def kept_means(path, *, pairs=(A,)):
    """kd and better on each pair, two seeds, and ce without a teacher; better keeps classes further apart."""
    rows = []
    for pair in pairs:
        for method, wrong in (("kd", (0.3, 0.4)), ("better", (0.2, 0.25))):
            for seed, w in enumerate(wrong):
                rows.append(run(method, 70.0 + seed, pair, seed))
                p = np.array([[1 - w, w], [w, 1 - w]])
                keep(path / "d", rows[-1], student_class_means=p, teacher_class_means=TEACHER)
    rows += runs("ce", 60.0, 61.0, pair=(None, pairs[0][1]))
    for row in rows[-2:]:
        keep(path / "d", row, student_class_means=np.full((2, 2), 0.5))
    return rows


def test_similarity_is_compared_on_the_same_seeds(tmp_path):
    found = boards(tmp_path, kept_means(tmp_path))
    measured = class_similarity.measure(found, [tmp_path / "d"])
    frame = class_similarity.frame(measured.runs, found)
    mass = frame[(frame["measure"] == "mass") & (frame["pair"] == "")].set_index("label")
    assert mass["mean"].to_dict() == pytest.approx({"(teacher)": 0.0, "better": 22.5, "ce": 50.0, "kd": 35.0})
    assert mass["delta"]["better"] == pytest.approx(-12.5)  # of -10 and -15
    assert mass["high"]["better"] - mass["delta"]["better"] == pytest.approx(12.7062 * 2.5, rel=1e-4)
    page = class_similarity.markdown(frame, "kd", FOOTER)
    assert "| 22.50 ± 3.54 (2) | -12.50 [-44.27, +19.27] |" in page
    assert page.index("(teacher)") < page.index("better") < page.index("| kd") < page.index("| ce")


def test_matrices_are_of_methods_that_have_all_common_pairs(tmp_path):
    rows = kept_means(tmp_path, pairs=(A, PAIRS[0]))
    (
        tmp_path / "d" / f"{rows[2]['cell_id']}.npz"
    ).unlink()  # better, seed 0 of the first pair: one seed is left
    for row in rows[6:8]:
        (tmp_path / "d" / f"{row['cell_id']}.npz").write_bytes(b"torn")  # better on the second pair
    rows = [row for row in rows if row["method"] != "ce"]
    measured = class_similarity.measure(boards(tmp_path, rows), [tmp_path / "nowhere", tmp_path / "d"])
    assert set(measured.matrices["label"]) == {"(teacher)", "kd"}
    kd = measured.matrices[measured.matrices["label"] == "kd"][["0", "1"]].to_numpy()
    assert kd[0, 1] == pytest.approx((0.3 / 0.58**0.5 + 0.4 / 0.52**0.5) / 2, abs=1e-4)
    assert len(measured.runs[measured.runs["label"] == "better"]) == 1


def test_like_classes_stand_side_by_side():
    group = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    p = 0.1 + (group[:, None] == group) + 0.5 * np.eye(9)
    order = class_similarity.class_order(class_similarity.cosines(p, p))
    assert sorted(order) == list(range(9))
    assert (np.diff(group[order]) != 0).sum() == 2
