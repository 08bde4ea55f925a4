"""What counts for a method's code hash: the code, not its documentation; and the committed rows' hashes."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from kdbench import registry
from kdbench.results import store
from kdbench.utils.code_hash import code_hash

RESULTS = Path(__file__).parents[2] / "results"
registry.load()


def newest() -> dict[str, str]:
    """method -> the code hash of its newest finished row in results/."""
    rows = pd.concat([store.read(RESULTS / f"{name}.csv") for name in store.suites(RESULTS)])
    rows = rows[rows["status"] == "ok"].sort_values("started_utc", kind="stable")
    return dict(rows.groupby("method")["code_hash"].last())


@pytest.mark.parametrize(("method", "code"), newest().items())
def test_committed_rows_were_run_by_todays_code(method, code):
    """A change of the code needs new rows: `kdbench run --force`."""
    assert registry.code_hash(method) == code


PLAIN = """
from typing import ClassVar
from torch import Tensor
from kdbench.losses import soft_kl
from kdbench.method import Method, Needs
from kdbench.registry import register

def term(logits: Tensor):
    return logits.mean()

@register
class Mine(Method):
    needs: ClassVar[Needs] = Needs(stages=True)
    weight: float = 1.0

    def build(self, context):
        return None

    def loss(self, batch, student, teacher, modules):
        return {"ce": self.weight * term(student.logits), "kd": soft_kl(student.logits, teacher.logits, 4.0)}
"""

# what documentation does to PLAIN, one change at a time
DOCUMENTED = {
    "docstrings": [("class Mine(Method):", 'class Mine(Method):\n    """Mine."""\n')],
    "a comment": [("return None", "return None  # nothing")],
    "records": [
        ("Method, Needs", "Method, Needs, Paper"),
        (
            "    weight",
            '    paper = Paper(title="T", authors=(), year=2000)\n    family = "logit"\n    weight',
        ),
    ],
    "fidelity": [("    weight", '    fidelity = "own"\n    weight')],
    "annotations": [
        ("from torch import Tensor", "from torch import Tensor, nn"),
        ("Method, Needs", "Batch, Method, Needs, Terms, Views"),
        (
            "loss(self, batch, student, teacher, modules):",
            "loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:",
        ),
    ],
    "an import for annotations alone": [
        ("from typing", "from collections.abc import Iterable\nfrom typing"),
        ("build(self, context):", "build(self, context: Iterable) -> Iterable[Tensor] | None:"),
    ],
}
# what is code, one change at a time
CODE = {
    "a default": [("= 1.0", "= 2.0")],
    "a hyperparameter's type": [("weight: float", "weight: int")],
    "what a function does": [("mean()", "sum()")],
    "an annotation of another function": [("logits: Tensor):", "logits: Tensor) -> Tensor:")],
    "needs": [("stages=True", "stages=False")],
    "an import that is used": [("import soft_kl", "import soft_cross_entropy as soft_kl")],
    "a decorator": [("    def build", "    @staticmethod\n    def build")],
}


def changed(tmp_path, edits) -> str:
    text = PLAIN
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    compile(text, "mine", "exec")
    (tmp_path / "mine.py").write_text(text)
    return code_hash(tmp_path / "mine.py")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documentation_does_not_count(tmp_path, name):
    assert changed(tmp_path, DOCUMENTED[name]) == changed(tmp_path, [])


def test_all_documentation_together_does_not_count(tmp_path):
    edits = dict(DOCUMENTED)
    records, annotations = edits.pop("records"), edits.pop("annotations")
    both = [
        ("Method, Needs", "Batch, Method, Needs, Paper, Terms, Views"),
        records[1],
        annotations[0],
        annotations[2],
    ]
    assert changed(tmp_path, [*both, *itertools.chain(*edits.values())]) == changed(tmp_path, [])


@pytest.mark.parametrize("name", CODE)
def test_code_counts(tmp_path, name):
    assert changed(tmp_path, CODE[name]) != changed(tmp_path, [])


def test_a_hyperparameter_called_like_a_record_counts(tmp_path):
    field = ("    weight", "    family: float = 1.0\n    weight")
    assert changed(tmp_path, [field]) != changed(tmp_path, [])
    assert changed(tmp_path, [field]) != changed(tmp_path, [(field[0], field[1].replace("1.0", "2.0"))])


def test_records_of_other_classes_count(tmp_path):
    """Only a registered class documents a method."""
    other = [("@register", "class Other:\n    family = 'logit'\n\n@register")]
    assert changed(tmp_path, other) != changed(
        tmp_path, [("@register", "class Other:\n    pass\n\n@register")]
    )
