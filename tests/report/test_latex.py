"""Tables in LaTeX: escaped, split where they do not fit, and compiled where pdflatex is installed."""

import re
import shutil
import subprocess

import pytest

from kdbench import suites
from kdbench.report.render import latex, latex_leaderboard
from kdbench.report.render.latex_leaderboard import appendix, leaderboard
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
    parts = tex.split(r"\end{table*}")[:-1]
    assert len(parts) > 1
    for i, part in enumerate(parts):
        assert f"(part {i + 1} of {len(parts)})" in part
        assert [line.split(" & ")[0] for line in body(part)] == ["kd", "dkd"]
        assert (
            max(len(line.replace(r"$\pm$", "±")) for line in body(part)) < 1.5 * latex.WIDE["footnotesize"][1]
        )
    shown = re.findall(r"\bdkd(\d+)", "".join(body(tex)))
    assert list(map(int, shown)) == list(range(20))  # every column once, in order
    assert len(set(re.findall(r"\\label{(.*?)}", tex))) == len(parts)
    assert tex.count("at the end") == 1


def test_a_long_table_goes_on_below():
    tex = latex.table(["m", "x"], [[f"m{i}", "1"] for i in range(100)], "C", "tab:l")
    assert [line.split(" & ")[0] for line in body(tex)] == [f"m{i}" for i in range(100)]
    assert max(len(body(part)) for part in tex.split(r"\end{table}")) <= latex.LONG


def test_parts_are_of_nearly_the_same_size():
    header = ["method", *(f"column{i:02}" for i in range(29))]
    tex = latex.table(header, [[f"m{r}", *["71.23 (3)"] * 29] for r in range(60)], "C", "tab:e")
    columns = {len(line.split(" & ")) for line in body(tex)}
    assert max(columns) - min(columns) <= 1
    rows = {len(body(part)) for part in tex.split(r"\end{table*}")[:-1]}
    assert max(rows) - min(rows) <= 1


def rows_of(tex):
    """First entry -> the other entries of each row with data, as text without LaTeX's commands."""
    plain = [
        re.sub(r"\\textbf|\\scriptsize|\\textsuperscript|\\,|\\S|[{}$]", "", line[:-3]) for line in body(tex)
    ]
    return {first: rest for first, *rest in (line.split(" & ") for line in plain if " & " in line)}


def test_teacher_and_plain_student_come_first(tmp_path):
    known = {"teacher_top1": 72.34}
    rows = [*runs("kd", 70.0, 75.0, 80.0, **known), *runs("d_kd", 71.0, 76.1, 80.9, **known)]
    rows += [*runs("ce", 64.0, 69.1, 73.9, pair=(None, A[1])), run("crd", None, status="diverged")]
    tex = leaderboard("s", boards(tmp_path, rows), ["Suite s; 6 rows."])
    shown = rows_of(tex)
    assert list(shown)[:2] == ["teacher", "student (ce)"]
    assert shown["teacher"] == ["72.34", ""]
    assert shown["student (ce)"][0] == r"69.00 \pm 4.95"
    assert shown["d\\_kd"] == [r"76.00 \pm 4.95", "+1.00 [+0.87, +1.13]"]
    assert shown["crd"][0] == r"\times"
    first, rest = tex.split("72.34", 1)
    assert rest.index(r"\midrule") < rest.index("kd")
    assert "% Suite s; 6 rows." in first
    assert (
        tex.index(r"\end{tabular}") < tex.index("Student (ce): trained without") < tex.index(r"\end{table}")
    )


def test_thirteen_pairs_are_one_table_of_two_groups(tmp_path):
    pairs = [(pair.teacher, pair.student) for pair in suites.load("cifar100").pairs]
    rows = grid(pairs, **{f"method_{i}": 0.1 * i for i in range(30)})
    rows += [run("method_3", None, pairs[4], seed=9, status="diverged")]
    found = boards(tmp_path, rows)
    tex = leaderboard("s", found, [])
    assert tex.count(r"\begin{table*}") == 1
    groups = re.findall(r"\\multicolumn\{(\d+)\}\{c\}\{(\w+ family)\}", tex)
    assert groups == [("7", "same family"), ("6", "cross family")]
    assert len(body(tex)) == 1 + 1 + 31  # the teacher, a line, methods
    entries = found[0].entries["mean"].unstack("pair")
    columns = latex_leaderboard._pairs(found[0].table)
    shown = rows_of(tex)["method\\_7"]
    assert shown[:13] == [f"{entries.loc['method_7', pair]:.2f}" for pair in columns]
    assert shown[13] == f"+{found[0].summary.loc['method_7', 'delta']:.2f}"
    place = columns.index(" -> ".join(pairs[4]))
    assert rows_of(tex)["method\\_3"][place].endswith(r"\times1")
    spreads = appendix("s", found, [])
    assert spreads.count("Standard deviation of top-1") == 1
    std = found[0].entries["std"].unstack("pair").loc["method_7"]
    assert rows_of(spreads.split("Comparison with")[0])["method\\_7"] == [
        f"{std[pair]:.2f}" for pair in columns
    ]


def test_the_appendix_compares_and_has_the_notes_in_its_float(tmp_path):
    found = boards(tmp_path, [*runs("kd", 70.0, 75.0, 80.0), *runs("dkd", 71.0, 76.1, 80.9)])
    tex = appendix("s", found, ["Suite s; 6 rows."])
    assert "Bold: within 0.17 of the best." in tex  # one-sided t of 2 degrees, 2.920, times 0.1 / 3**0.5
    last = tex.rindex(r"\end{table*}")  # across both columns: a column would be all notes
    assert tex.index("Comparison with kd") < tex.rindex("Suite s; 6 rows.") < last
    assert tex[last:].strip() == r"\end{table*}"  # nothing loose


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(tmp_path):
    rows = grid([A, *PAIRS, *MANY], **{f"method_{i}": 0.1 * i for i in range(48)})
    rows += [run("crd", None, status="diverged"), run("fitnet", None, status="skipped", error=NASTY)]
    rows += runs("kd", 60.0, 61.0, split="holdout", variant=NASTY)
    table = latex.table([NASTY, "a ->\nb"], [["[x]", "1"], ["*", NASTY]], NASTY, NASTY, [NASTY])
    found = boards(tmp_path, rows)
    tex = document(table, leaderboard("s_1", found, [NASTY]), appendix("s_1", found, [NASTY]))
    (tmp_path / "report.tex").write_text(tex)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "Float too large" not in done.stdout
    assert "multiply defined" not in done.stdout
