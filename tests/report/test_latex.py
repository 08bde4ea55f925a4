"""Tables in LaTeX: escaped, split where they do not fit, and compiled where pdflatex is installed."""

import re
import shutil
import subprocess

import pytest

from kdbench.report.render import latex
from tests.support.scenarios import PAIRS, A, boards, grid, run, runs

NASTY = r"50% & a_b #1 $x$ {y} ~^\ <z> |Δ| [w] * --flag -> é ß þ 模型 “q” …"
MANY = [(f"teacher_{i}", f"student_{i}") for i in range(15)]


def document(*fragments):
    head = "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    return head + "\n".join(fragments) + "\n\\end{document}\n"


def body(tex):
    """The lines of data of all tables."""
    return [
        line
        for part in re.findall(r"\\midrule\n(.*?)\n\\bottomrule", tex, re.DOTALL)
        for line in part.split("\n")
    ]


def test_special_characters_are_escaped_each():
    assert latex.escape("50% & a_b #1 $ {}") == r"50\% \& a\_b \#1 \$ \{\}"
    assert latex.escape("\\") == r"\textbackslash{}"
    assert latex.escape("±→Δ✗†") == r"$\pm$$\rightarrow$$\Delta$$\times$$\dagger$"
    assert latex.escape("é模") == "é?"
    assert latex.escape("--set") == "-{}-set"  # no ligature to a dash


def test_negative_numbers_have_a_minus_and_ranges_a_hyphen():
    assert latex.escape("-1.97 and 3-1-0, resnet-20") == r"$-$1.97 and 3-1-0, resnet-20"


def test_what_is_latex_already_stays():
    assert latex.escape(latex.bold("a_b")) == r"\textbf{a\_b}"


def test_a_small_table():
    tex = latex.table(["method", "a ->\nb"], [["kd", "71.0"]], "Caption", "tab:x y", ["at the end"])
    assert tex.count(r"\begin{table}") == 1
    assert r"method & \shortstack[r]{a $\rightarrow$\\b} \\" in tex
    assert body(tex) == [r"kd & 71.0 \\"]
    assert r"\label{tab:x-y}" in tex
    assert tex.index("bottomrule") < tex.index("at the end") < tex.index(r"\end{table}")


def test_parts_of_a_wide_table_all_begin_with_the_first_column():
    header = ["method", *(f"column{i}" for i in range(20))]
    rows = [[m, *(f"{m}{i} ± 0.12 (3)" for i in range(20))] for m in ("kd", "dkd")]
    tex = latex.table(header, rows, "C", "tab:w", ["at the end"])
    parts = tex.split(r"\end{table}")[:-1]
    assert len(parts) > 1
    for i, part in enumerate(parts):
        assert f"(part {i + 1} of {len(parts)})" in part
        assert [line.split(" & ")[0] for line in body(part)] == ["kd", "dkd"]
        assert max(len(line.replace(r"$\pm$", "±")) for line in body(part)) < 1.5 * latex.WIDE
    shown = re.findall(r"\bdkd(\d+)", "".join(body(tex)))
    assert list(map(int, shown)) == list(range(20))  # every column once, in order
    assert len(set(re.findall(r"\\label{(.*?)}", tex))) == len(parts)
    assert tex.count("at the end") == 1


def test_a_long_table_goes_on_below():
    tex = latex.table(["m", "x"], [[f"m{i}", "1"] for i in range(100)], "C", "tab:l")
    assert [line.split(" & ")[0] for line in body(tex)] == [f"m{i}" for i in range(100)]
    assert max(len(body(part)) for part in tex.split(r"\end{table}")) <= latex.LONG


def test_leaderboard_has_the_boards_numbers(tmp_path):
    found = boards(tmp_path, [*runs("kd", 70.0, 75.0, 80.0), *runs("d_kd", 71.0, 76.1, 80.9)])
    tex = latex.leaderboard("s", found, ["Suite s; 6 rows."])
    assert r"d\_kd & \textbf{76.00 $\pm$ 4.95 (3)} & +1.00 {[}+0.75, +1.25{]}\S{} & 1-0-0" in tex
    assert "kd & 75.00 $\\pm$ 5.00 (3) & baseline & --" in tex
    assert "Bold: within 0.17 of the best." in tex  # one-sided t of 2 degrees, 2.920, times 0.1 / 3**0.5
    assert tex.index("end{table}") < tex.index("Suite s; 6 rows.")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(tmp_path):
    rows = grid([A, *PAIRS, *MANY], **{f"method_{i}": 0.1 * i for i in range(48)})
    rows += [run("crd", None, status="diverged"), run("fitnet", None, status="skipped", error=NASTY)]
    rows += runs("kd", 60.0, 61.0, split="holdout", variant=NASTY)
    table = latex.table([NASTY, "a ->\nb"], [["[x]", "1"], ["*", NASTY]], NASTY, NASTY, [NASTY])
    tex = document(table, latex.leaderboard("s_1", boards(tmp_path, rows), [NASTY]))
    (tmp_path / "report.tex").write_text(tex)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Float too large" not in done.stdout
    assert "multiply defined" not in done.stdout
