"""Suite files: the shipped ones against reference values, and every mistake in one's own."""

import dataclasses
import re

import pytest
import torch

from kdbench import models, registry, suites
from kdbench.errors import KdbenchError
from kdbench.plan.selection import select_methods
from kdbench.suites import Pair, Recipe, loader
from kdbench.suites.schema import View, find_view
from kdbench.utils.hashing import digest
from tests.support.lab import SUITE_TEXT

# --- the shipped ones ---


@pytest.mark.parametrize("name", suites.names())
def test_a_shipped_suite_can_be_run(scratch_registry, name):
    """Every method, parameter, model, view and seed that it names is there."""
    suite = suites.load(name)
    assert suite.name == name
    assert suite.seeds
    for method in select_methods(None, suite.methods):
        assert all(find_view(suite.views, view) for view in registry.get(method).needs.views)
    tables = [suite.params, *(pair.params for pair in suite.pairs)]
    for table in tables:
        for method, params in table.items():
            assert registry.create(method, params).params.items() >= params.items()
    for model in {name for pair in suite.pairs for name in (pair.teacher, pair.student)}:
        spec = suite.model(model)
        with torch.device("meta"):  # the structure is all that counts here
            net = models.create(spec.arch, suite.dataset.classes, **spec.args)
        assert net.num_classes == suite.dataset.classes


def test_the_default_suites_are_there():
    assert {"digits", "cifar10", "cifar100", "cifar100-quick", "tiny-imagenet"} <= set(suites.names())


def test_cifar100_is_the_crd_protocol():
    """Numbers of arXiv:1910.10699 and github.com/HobbitLong/RepDistiller, typed here once more."""
    suite = suites.load("cifar100")
    assert suite.recipe == Recipe(
        epochs=240, reference_epochs=240, batch_size=64, lr=0.05, momentum=0.9, nesterov=False, weight_decay=5e-4,
        schedule="step", precision="fp32", eval_every=suite.recipe.eval_every, milestones=(150, 180, 210), decay=0.1,
    )  # fmt: skip
    assert suite.views["weak"] == View(pad=4, flip=True)
    assert suite.dataset.mean == (0.5071, 0.4867, 0.4408)
    assert suite.dataset.std == (0.2675, 0.2565, 0.2761)
    assert (suite.dataset.name, suite.dataset.classes, suite.dataset.size) == ("cifar100", 100, 32)
    assert suite.dataset.train_per_class is suite.dataset.test_per_class is None
    assert len(suite.seeds) >= 3


def test_cifar100_trains_light_students_at_a_fifth_of_the_rate():
    """RepDistiller and mdistiller: 0.01 for MobileNetV2, ShuffleNetV1 and V2, 0.05 for the others."""
    for pair in suites.load("cifar100").pairs:
        light = pair.student.startswith(("mobilenet", "shufflenet"))
        assert dict(pair.recipe) == ({"lr": 0.01} if light else {}), str(pair)


def test_cifar100_names_the_literatures_pairs_and_their_dkd_beta():
    """beta by pair: mdistiller/configs/cifar100/dkd; accuracies of teachers: cifar_teachers.tar."""
    suite = suites.load("cifar100")
    betas = {str(pair): pair.params.get("dkd", {}).get("beta") for pair in suite.pairs}
    published = {
        "resnet56:resnet20": 2.0, "resnet110:resnet20": 2.0, "resnet110:resnet32": 2.0, "resnet32x4:resnet8x4": 8.0,
    }  # fmt: skip
    assert betas.items() >= published.items()
    accuracy = {name: teacher.top1 for name, teacher in suite.teachers.items()}
    assert accuracy.items() >= {"resnet56": 72.34, "resnet110": 74.31, "resnet32x4": 79.42}.items()


@pytest.mark.parametrize(
    ("name", "digested"),
    [
        ("cifar10", "394cd2c58254"),
        ("cifar100", "2a9ee9e114ae"),
        ("cifar100-quick", "184c94609a8f"),
        ("cifar100-timm", "ac1f71ebe8d6"),
        ("cifar100-twoview", "2e3088f4627c"),
        ("imagenet", "1ee2f1a81592"),
        ("tiny-imagenet", "2aa3ed4e02df"),
    ],
)
def test_pairs_keep_their_recipes_and_parameters(name, digested):
    """They are part of the ids of rows: who changes one on purpose writes the new digest here."""
    pairs = {str(pair): [pair.recipe, pair.params] for pair in suites.load(name).pairs}
    assert digest(pairs) == digested


def test_suites_on_cifar100_agree_on_each_pairs_parameters():
    full = {str(pair): pair.params for pair in suites.load("cifar100").pairs}
    assert sum(map(bool, full.values())) == 12
    for name in ("cifar100-quick", "cifar100-twoview"):
        for pair in suites.load(name).pairs:
            assert pair.params == full[str(pair)], pair


def test_quick_differs_from_cifar100_only_where_it_says_so():
    full, quick = suites.load("cifar100"), suites.load("cifar100-quick")
    differing = {f.name for f in dataclasses.fields(full) if getattr(full, f.name) != getattr(quick, f.name)}
    assert differing <= {"name", "description", "methods", "seeds", "recipe", "pairs"}
    assert [dataclasses.replace(p, recipe={}) for p in quick.pairs] == [
        dataclasses.replace(p, recipe={}) for p in full.pairs
    ]
    for here, there in zip(quick.pairs, full.pairs, strict=True):  # a light student's rate keeps its share
        assert here.recipe.keys() == there.recipe.keys() <= {"lr"}
        for key in here.recipe:
            assert quick.recipe.lr / here.recipe[key] == full.recipe.lr / there.recipe[key] == 5
    recipe = {
        f.name
        for f in dataclasses.fields(Recipe)
        if getattr(full.recipe, f.name) != getattr(quick.recipe, f.name)
    }
    assert recipe <= {"epochs", "lr", "schedule", "milestones", "decay", "peak", "precision", "eval_every"}
    assert (quick.recipe.epochs, quick.recipe.schedule) == (12, "onecycle")
    assert quick.recipe.batch_size == full.recipe.batch_size == 64
    assert quick.recipe.reference_epochs == full.recipe.reference_epochs == 240


def test_cifar10_is_cifar100s_protocol_on_other_images():
    """Mean and std: github.com/AberHu/Knowledge-Distillation-Zoo, train_base.py."""
    suite, other = suites.load("cifar10"), suites.load("cifar100")
    assert (suite.recipe, suite.views) == (other.recipe, other.views)
    assert (suite.dataset.name, suite.dataset.classes, suite.dataset.size) == ("cifar10", 10, 32)
    assert suite.dataset.mean == (0.4914, 0.4822, 0.4465)
    assert suite.dataset.std == (0.2470, 0.2435, 0.2616)
    assert not any(pair.recipe or pair.params for pair in suite.pairs)
    assert "resnet110:resnet20" in map(str, suite.pairs)
    assert not set(suite.teachers.values()) & set(
        other.teachers.values()
    )  # CIFAR-100's are not expected here


def test_tiny_imagenet_is_cktfs_protocol():
    """github.com/kaiqi123/CKTF: README (accuracies, pairs), dataset/imagenet.py, train_student.py, models/."""
    suite = suites.load("tiny-imagenet")
    assert suite.recipe == suites.load("cifar100").recipe
    assert (suite.dataset.name, suite.dataset.classes, suite.dataset.size) == ("tiny-imagenet", 200, 64)
    assert suite.dataset.mean == (0.485, 0.456, 0.406)
    assert suite.dataset.std == (0.229, 0.224, 0.225)
    assert suite.views["weak"] == View(flip=True, scale=(0.08, 1.0))
    assert [str(pair) for pair in suite.pairs] == [
        "vgg19:vgg8", "vgg16:vgg11", "resnet34:resnet10", "resnet50:resnet10",
    ]  # fmt: skip
    accuracy = {name: teacher.top1 for name, teacher in suite.teachers.items()}
    assert accuracy == {"vgg19": 61.62, "vgg16": 61.35, "resnet34": 65.38, "resnet50": 65.34}
    counts = {}
    for name in ("resnet10", "resnet34", "resnet50", "vgg8", "vgg11", "vgg16", "vgg19"):
        spec = suite.model(name)
        with torch.device("meta"):
            counts[name] = models.count_parameters(models.create(spec.arch, 200, **spec.args))
    ratios = [round(counts[pair.teacher] / counts[pair.student], 2) for pair in suite.pairs]
    assert ratios == [5.01, 1.59, 4.28, 4.78]  # the README's compression ratios


def test_digits_are_not_mirrored():
    suite = suites.load("digits")
    assert not any(view.flip for view in suite.views.values())
    assert (suite.dataset.size, suite.dataset.classes) == (8, 10)


def test_digits_pairs_have_a_teacher_and_a_student_each():
    """A test over pairs then has as many independent units as there are pairs."""
    suite = suites.load("digits")
    assert len(suite.pairs) == len(suite.methods) == 6
    assert len({pair.teacher for pair in suite.pairs} | {pair.student for pair in suite.pairs}) == 12


# --- one's own ---


VIEWS = re.search(r"\[views.*?(?=\[recipe\])", SUITE_TEXT, re.S).group()


def load(lab, *replaced):
    return suites.load(str(lab.suite_file(*replaced)))


def test_a_file_is_read_field_by_field(lab):
    suite = load(lab)
    same = dict.fromkeys(("name", "description", "methods", "seeds", "recipe", "pairs"))
    assert {k: getattr(suite, k) for k in same} == {k: getattr(lab.suite, k) for k in same}
    assert suite.dataset == dataclasses.replace(lab.suite.dataset, holdout=0.1)
    strong = View(pad=1, ops=2, magnitude=10, cutout=0.5)
    assert suite.views == {"weak": View(pad=1, flip=True), "strong": strong}
    assert suite.model("teacher") == lab.suite.model("teacher")


@pytest.mark.parametrize(
    ("old", "new", "key", "near"),
    [
        ("seeds = [0]", "seeds = [0]\nsede = 1", "sede", "seeds"),
        ("size = 8", "size = 8\nclases = 4", "clases", "classes"),
        ("pad = 1", "pad = 1\nflipp = true", "flipp", "flip"),
        ("momentum = 0.9", "momentum = 0.9\nmomentun = 0.9", "momentun", "momentum"),
        ('student = "student"', 'student = "student"\nparam = {}', "param", "params"),
        ('arch = "resnet8", args = { widths = [4', 'arch = "resnet8", arg = { widths = [4', "arg", "args"),
        ("[[pairs]]", "[teachers.teacher]\ntop1 = 70.0\ntop5 = 90.0\n[[pairs]]", "top5", "top1"),
        ("[[pairs]]", "[teacher_recipe]\nlearning = 1\n[[pairs]]", "learning", ""),
        ('student = "student"', 'student = "student"\nrecipe = { epoch = 4 }', "epoch", "epochs"),
        ("[recipe]", "[name]\n[recipe]", "name", ""),
    ],
)
def test_an_unknown_key_names_file_key_and_the_nearest(lab, old, new, key, near):
    with pytest.raises(KdbenchError) as caught:
        load(lab, (old, new))
    text = str(caught.value)
    assert f"unknown key '{key}' in {lab.folder / 'tiny.toml'}" in text
    assert (f"did you mean '{near}'?" if near else "; ") in text


@pytest.mark.parametrize(
    ("line", "key", "where"),
    [
        ('description = "64 images"\n', "description", ""),
        ('name = "tiny"\n', "name", ": dataset"),
        ("weight_decay = 5e-4\n", "weight_decay", ": recipe"),
        ('student = "student"\n', "student", r": pairs\[0\]"),
        ("epochs = 2\nreference_epochs = 240\n", "epochs", ": recipe"),
    ],
)
def test_a_missing_key_names_file_table_and_key(lab, line, key, where):
    with pytest.raises(KdbenchError, match=rf"missing key '{key}' in .*tiny\.toml{where}$"):
        load(lab, (line, ""))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2\n", 'epochs = "2"\n', r"recipe: epochs must be of type int, got '2'"),
        ("epochs = 2\n", "epochs = 2.0\n", r"recipe: epochs must be of type int, got 2\.0"),
        ("epochs = 2\n", "epochs = true\n", r"recipe: epochs must be of type int, got True"),
        ("nesterov = false", "nesterov = 0", r"recipe: nesterov must be of type bool, got 0"),
        ("lr = 0.05", 'lr = "fast"', r"recipe: lr must be of type float, got 'fast'"),
        ("seeds = [0]", "seeds = 0", r"seeds must be a list, got 0"),
        ("seeds = [0]", 'seeds = [0, "1"]', r"seeds\[1\] must be of type int, got '1'"),
        ('"ce", "kd"', "1", r"methods\[0\] must be of type str, got 1"),
        ("[views.weak]\npad = 1\nflip = true", "[views]\nweak = 3", r"views\.weak must be a table, got 3"),
        (VIEWS, "", r"missing key 'views'|unknown"),
        ('"step"', '"stepp"', r"unknown value 'stepp' in .*recipe: schedule; did you mean 'step'"),
        ('"fp32"', '"fp16"', r"unknown value 'fp16' in .*recipe: precision; did you mean"),
        ("pad = 1", "pad = 1.5", r"views\.weak: pad must be of type int"),
        ("[[pairs]]", "[[pairs]]\nparams = { kd = 4 }", r"pairs\[0\]: params\.kd must be a table, got 4"),
        (
            'student = "student"',
            'student = "student"\nrecipe = { lr = "a" }',
            r"pair teacher:student: lr must be",
        ),
    ],
)
def test_a_value_of_the_wrong_type_names_file_key_and_value(lab, old, new, message):
    with pytest.raises(KdbenchError, match=message) as caught:
        load(lab, (old, new))
    assert "tiny.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2\n", "epochs = 0\n", "epochs must be greater than 0, got 0"),
        ("lr = 0.05", "lr = -0.05", "lr must be greater than 0"),
        ("lr = 0.05", "lr = nan", "lr must be finite, got nan"),
        ("batch_size = 16", "batch_size = 1", "batch_size must be at least 2"),
        ("eval_every = 1", "eval_every = 0", "eval_every must be greater than 0"),
        ("eval_every = 1", "eval_every = 1\npeak = 1.0", "peak must be between 0 and 1"),
        ("pad = 1", "pad = -1", "pad and ops must be 0 or more"),
        ("weight_decay = 5e-4", "weight_decay = inf", "weight_decay"),
        ("weight_decay = 5e-4", "weight_decay = -1.0", "weight_decay"),
        ("momentum = 0.9", "momentum = -0.9", "momentum"),
        ("momentum = 0.9\nnesterov = false", "momentum = 0.0\nnesterov = true", "nesterov"),
        ("std = [0.3, 0.3, 0.3]", "std = [0.3, 0.3, 0.0]", "std"),
        ("mean = [0.4, 0.4, 0.4]", "mean = [0.4, 0.4]", "mean"),
        ("size = 8", "size = -8", "size must be greater than 0, or left out"),
        ('name = "tiny"', 'folder = "a"\nnpz = "b.npz"', "from folder or from npz; name one"),
    ],
)
def test_a_value_out_of_range_names_the_file(lab, old, new, message):
    with pytest.raises(KdbenchError, match=message) as caught:
        load(lab, (old, new))
    assert "tiny.toml" in str(caught.value)


@pytest.mark.parametrize("changes", [{"epochs": 0}, {"batch_size": 1}, {"lrr": 0.1}])
def test_the_recipe_of_a_pair_and_of_teachers_is_checked_too(lab, changes):
    ((key, value),) = changes.items()
    for old, new in (
        ('student = "student"', f'student = "student"\nrecipe = {{ {key} = {value} }}'),
        ("[[pairs]]", f"[teacher_recipe]\n{key} = {value}\n[[pairs]]"),
    ):
        with pytest.raises(KdbenchError, match=rf"{key}.*tiny\.toml|tiny\.toml.*{key}"):
            load(lab, (old, new))


def test_a_file_that_is_no_toml_is_told_with_the_place(lab):
    with pytest.raises(KdbenchError, match=r"tiny\.toml is not valid TOML: .*line 4"):
        load(lab, ('methods = ["ce", "kd"]', 'methods = ["ce", "kd"'))


def test_what_macos_puts_beside_a_shipped_suite_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "FOLDER", tmp_path)
    for name in ("mine.toml", "._mine.toml"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert suites.names() == ["mine"]


def test_a_file_of_other_bytes_is_told(lab):
    file = lab.suite_file()
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KdbenchError, match=r"is not UTF-8 .*save it in that encoding"):
        suites.load(str(file))


def test_a_suite_that_is_not_there(tmp_path):
    with pytest.raises(KdbenchError, match="unknown suite 'cifar11'; did you mean 'cifar10"):
        suites.load("cifar11")
    with pytest.raises(KdbenchError, match=r"suite file .*none\.toml does not exist"):
        suites.load(str(tmp_path / "none.toml"))


def test_suites_are_frozen(lab):
    suite = load(lab)
    with pytest.raises(dataclasses.FrozenInstanceError):
        suite.recipe.lr = 1.0


def test_a_pair_is_written_with_a_colon():
    assert str(Pair("a", "b")) == "a:b"


def test_a_suites_own_model_comes_before_the_architecture(lab):
    named = lab.suite_file(("[models]", '[models]\nresnet20 = { arch = "resnet8" }'))
    assert suites.load(str(named)).model("resnet20").arch == "resnet8"
    assert suites.load(str(named)).model("resnet56") == suites.ModelSpec("resnet56", {})
