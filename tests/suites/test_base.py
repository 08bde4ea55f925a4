"""A suite that builds on another: what it does not say is the other's."""

import dataclasses

import pytest

from kdbench import suites
from kdbench.errors import KdbenchError
from kdbench.suites import DataSpec, ModelSpec, Pair, TeacherSpec
from kdbench.suites.schema import View


@pytest.fixture
def write(lab):
    """Write a suite that builds on the laboratory's, read it."""
    (lab.folder / "below").mkdir()
    lab.suite_file(
        (
            "[[pairs]]",
            "[params]\nkd = { temperature = 2.0 }\ndkd = { beta = 3.0 }\n"
            "[teachers]\nteacher = { top1 = 70.0 }\n[[pairs]]",
        )
    )

    def write(text: str, base: str = "../tiny.toml", name: str = "mine"):
        file = lab.folder / "below" / f"{name}.toml"
        file.write_text(f'base = "{base}"\n{text}')
        return suites.load(str(file))

    return write


@pytest.fixture
def base(write, lab):
    return suites.load(str(lab.folder / "tiny.toml"))


def test_a_file_that_says_nothing_is_its_base_under_another_name(write, base):
    assert write("") == dataclasses.replace(base, name="mine")
    shipped = write("", base="cifar100-quick")
    assert shipped == dataclasses.replace(suites.load("cifar100-quick"), name="mine")


def test_texts_and_lists_are_replaced(write, base):
    suite = write('description = "x"\nmethods = ["kd"]\nseeds = [4]\n[[pairs]]\nteacher = "a"\nstudent = "b"')
    assert (suite.description, suite.methods, suite.seeds, suite.pairs) == (
        "x",
        ("kd",),
        (4,),
        (Pair("a", "b"),),
    )
    assert (suite.recipe, suite.dataset, suite.views) == (base.recipe, base.dataset, base.views)


def test_pairs_may_be_texts_or_two_names_beside_tables(write, lab):
    suite = write(
        'pairs = ["a:b", "timm:resnet18 -> local-dir:nets/c", ["d", "e"], '
        '{ teacher = "teacher", student = "student", recipe = { lr = 0.5 } }]\n'
        '[pair_params."a->b"]\nkd = { temperature = 3.0 }'
    )
    here = f"local-dir:{lab.folder / 'below' / 'nets' / 'c'}"
    assert suite.pairs == (
        Pair("a", "b", params={"kd": {"temperature": 3.0}}),
        Pair("timm:resnet18", here),
        Pair("d", "e"),
        Pair("teacher", "student", {"lr": 0.5}),
    )


def test_pairs_of_a_built_suite_may_be_texts_or_tuples(base):
    built = dataclasses.replace(base, pairs=["a:b", ("c", "d"), Pair("e", "f")])
    assert suites.validated(built).pairs == (Pair("a", "b"), Pair("c", "d"), Pair("e", "f"))


@pytest.mark.parametrize("pair", ['"ab"', '"timm:a:b"', '["a", "b", "c"]', "3"])
def test_a_wrong_pair_names_its_file_and_place(write, pair):
    with pytest.raises(
        KdbenchError, match=r"a pair is written teacher:student.*, got .* in .*mine\.toml: pairs\[1\]"
    ):
        write(f'pairs = ["a:b", {pair}]')


def test_recipes_merge_key_by_key(write, base):
    suite = write("[recipe]\nlr = 0.3\nmilestones = [7]\n[teacher_recipe]\nepochs = 9")
    assert suite.recipe == dataclasses.replace(base.recipe, lr=0.3, milestones=(7,))
    assert suite.teacher_recipe == {"epochs": 9}


def test_the_others_merge_by_name(write, base):
    suite = write("""
[views.weak]
pad = 2
[views.strong]
ops = 1
[models]
student = { arch = "resnet20" }
[teachers]
other = { top1 = 60.0 }
[params]
kd = { alpha = 0.5 }
[[pairs]]
teacher = "other"
student = "student"
""")
    assert suite.views == {"weak": View(pad=2), "strong": View(ops=1)}  # flip of the base's weak is gone
    assert suite.models == {**base.models, "student": ModelSpec("resnet20")}
    assert suite.teachers == {"teacher": TeacherSpec(70.0), "other": TeacherSpec(60.0)}
    assert suite.params == {"kd": {"alpha": 0.5}, "dkd": {"beta": 3.0}}


@pytest.mark.parametrize("name", ["", 'name = "tiny"\n'])
def test_the_same_data_set_keeps_what_is_not_said(write, base, name):
    suite = write(f"[dataset]\n{name}holdout = 0.3\ntrain_per_class = 5")
    assert suite.dataset == dataclasses.replace(base.dataset, holdout=0.3, train_per_class=5)
    assert suite.teachers == base.teachers


@pytest.mark.parametrize(
    ("table", "name", "place"),
    [
        ('name = "other"', "other", {}),
        ('folder = "images"', "images", {"folder": "below/images"}),
        ('folder = "../v1.2/"', "v1.2", {"folder": "v1.2"}),
        ('npz = "mine.npz"', "mine", {"npz": "below/mine.npz"}),
        ('name = "tiny"\nnpz = "/somewhere/mine.npz"', "tiny", {"npz": "/somewhere/mine.npz"}),
    ],
)
def test_another_data_set_takes_nothing_of_the_bases(write, lab, table, name, place):
    suite = write(f"[dataset]\n{table}")
    places = {key: str(lab.folder / path) for key, path in place.items()}
    assert suite.dataset == DataSpec(name, **places)
    assert suite.teachers == {}  # they were expected of other images


def test_a_path_is_seen_from_the_file_that_names_it(write, lab):
    (lab.folder / "below" / "base.toml").write_text('base = "../tiny.toml"\n[dataset]\nfolder = "images"')
    (lab.folder / "top.toml").write_text('base = "below/base.toml"\n[dataset]\nsize = 9')
    dataset = suites.load(str(lab.folder / "top.toml")).dataset
    assert dataset == DataSpec("images", size=9, folder=str(lab.folder / "below" / "images"))


def test_a_home_folder(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert write('[dataset]\nfolder = "~/images"').dataset.folder == "/home/me/images"


def test_a_circle_is_told(lab):
    for name, base in (("a", "b"), ("b", "a"), ("c", "c")):
        (lab.folder / f"{name}.toml").write_text(f'base = "{base}.toml"')
    with pytest.raises(
        KdbenchError, match=r"a\.toml: the bases go round in a circle \(a\.toml -> b\.toml -> a\.toml\)"
    ):
        suites.load(str(lab.folder / "a.toml"))
    with pytest.raises(KdbenchError, match=r"circle \(c\.toml -> c\.toml\)"):
        suites.load(str(lab.folder / "c.toml"))


def test_an_unknown_base_is_told(write):
    with pytest.raises(
        KdbenchError, match=r"unknown suite 'cifar1000' \(base of .*mine\.toml\); did you mean 'cifar100"
    ):
        write("", base="cifar1000")
    with pytest.raises(KdbenchError, match=r"none\.toml does not exist \(base of .*mine\.toml\)"):
        write("", base="none.toml")


def test_a_base_that_is_no_name(lab):
    file = lab.folder / "mine.toml"
    file.write_text("base = 3")
    with pytest.raises(
        KdbenchError, match=r"mine\.toml: base must be the name of a suite or a \.toml file, got 3"
    ):
        suites.load(str(file))


@pytest.mark.parametrize(
    "text", ["recipe = 3", "dataset = 3", "[recipe]\nlrr = 1.0", "[dataset]\nsiz = 3", "models = 3"]
)
def test_a_mistake_names_both_files(write, text):
    with pytest.raises(KdbenchError, match=r"mine\.toml on .*tiny\.toml"):
        write(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[views.week]\npad = 1", "view 'week' in .* is hardly meant beside 'weak'; rename one"),
        (
            "[recipe]\nepochs = 6\nmilestones = [3, 5]",
            "milestones .* would be epochs of 240 .* in a run of 6",
        ),
        (
            "[recipe]\nreference_epochs = 30",
            r"milestones are epochs of reference_epochs = 30, and .* lie behind its end",
        ),
        ("[recipe]\nmilestones = [5, -3, 1000]", "milestones must be greater than 0 and rise"),
        ("[recipe]\ndecay = -0.1", "decay must be greater than 0 and at most 1, got -0.1"),
        ("[teachers.resnet56]\ntop1 = 0.95", "teachers: resnet56: top1 is in percent, got 0.95"),
        ("seeds = []", r"seeds is empty; seeds = \[0\]"),
        (
            "[dataset]\nmean = [127.0, 127.0, 127.0]",
            "mean and std are of pixels in 0..1; divide those in 0..255 by 255",
        ),
    ],
)
def test_values_in_the_units_of_other_software_are_told(write, text, said):
    with pytest.raises(KdbenchError, match=said):
        write(text, base="cifar100")


def test_milestones_in_either_unit_are_taken_where_it_is_said(write):
    assert (
        write(
            "[recipe]\nepochs = 6\nreference_epochs = 6\nmilestones = [3, 5]", base="cifar100"
        ).recipe.epochs
        == 6
    )
    assert (
        write("[recipe]\nepochs = 6\nmilestones = [100, 200]", base="cifar100").recipe.reference_epochs == 240
    )
    assert "weak2" in write("[views.weak2]\npad = 1", base="cifar100").views
