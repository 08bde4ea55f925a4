"""`kdbench published`: the numbers are those of published.csv, each once, with where it is printed."""

import re

import pytest

from kdbench.errors import KdbenchError
from kdbench.results import published
from kdbench.results.published_tables import text

ROWS = published.load()


def cells(table: str) -> list[list[str]]:
    """The lines of a table below its headings, by columns."""
    return [re.split(r" {2,}", line) for line in table.splitlines()[2:]]


def test_a_pair_is_a_table_with_its_teacher_and_its_student():
    crd = text(["ce", "teacher", "kd"], ["resnet56:resnet20"], ["cifar100"]).split("\n\n")[0]
    assert crd.splitlines()[0] == "cifar100, resnet56:resnet20, top-1, protocol crd"
    assert cells(crd) == [
        ["teacher", "72.34", "1", "unknown", "CRD"],
        ["kd", "70.66", "5", "last", "CRD"],
        ["ce", "69.06", "5", "last", "CRD"],
    ]


def test_every_printed_number_of_a_pair_is_there_highest_first():
    table = text(None, ["resnet56:resnet20"], ["cifar100"]).split("\n\n")[0]
    of_pair = (
        ROWS["teacher"].isin(["", "resnet56"])
        & ROWS["student"].isin(["", "resnet20"])
        & (ROWS[["dataset", "protocol"]] == ["cifar100", "crd"]).all(axis=1)
        & ROWS["origin"].isin(["own", "quoted"])
    )
    names = (ROWS["method"] + " " + ROWS["variant"]).str.strip()
    expected = {
        (name, f"{value:.2f}") for name, value in zip(names[of_pair], ROWS["value"][of_pair], strict=True)
    }
    shown = [(line[0], line[1].split(" ")[0]) for line in cells(table)]
    assert set(shown) == expected
    assert len(shown) == len(expected)
    assert [value for _, value in shown] == sorted((value for _, value in shown), reverse=True)


def test_sources_are_named_in_full():
    notes = text(["wkd"], ["resnet34:resnet18"]).split("\n\n")[-1]
    assert notes.startswith("WKD: arXiv:2412.08139 / README github.com/JiamingLv/WKD\n")
    assert notes.endswith(str(published.FILE))


def test_globs_and_arrows_choose_too():
    assert text(["wkd"], ["resnet34->resnet18"]) == text(["wkd"], ["resnet34:resnet1?"])
    assert text(["wkd*"]).count("wkd-f") > text(["wkd"]).count("wkd-f") == 0


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"methods": ["dkdd"]}, "unknown published method 'dkdd'; did you mean 'dkd'"),
        ({"methods": ["zz*"]}, r"unknown published method 'zz\*'"),
        (
            {"pairs": ["resnet56:resnet21"]},
            "unknown published pair 'resnet56:resnet21'; did you mean 'resnet56:resnet20'",
        ),
        ({"dataset": ["cifar"]}, "unknown published data set 'cifar'; did you mean 'cifar10'"),
        (
            {"methods": ["wkd"], "dataset": ["tiny-imagenet"]},
            "knows no published number of wkd on these data",
        ),
        (
            {"methods": ["wkd"], "pairs": ["resnet56:resnet20"]},
            "nothing is published of these methods on these pairs",
        ),
        ({"methods": ["bickd"]}, "knows no published number of bickd on these data"),
    ],
)
def test_a_choice_of_nothing_names_the_remedy(choice, message):
    with pytest.raises(KdbenchError, match=message):
        text(**choice)
