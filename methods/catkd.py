"""Class attention transfer: where in the image each class is seen."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, needs_linear_head, pool, unit


def class_maps(features: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
    """The head applied at every position, [B, D, H, W] -> [B, C, H, W]; the spatial mean is the logits.

    >>> class_maps(torch.arange(4.0).view(1, 2, 1, 2), lambda rows: rows.sum(dim=1, keepdim=True))
    tensor([[[[2., 4.]]]])
    """
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)
    size = (len(features), *features.shape[2:])
    return classify(rows).unflatten(0, size).permute(0, 3, 1, 2)


def cat_loss(
    student: Tensor, teacher: Tensor, size: int, normalize: bool, mask: Tensor | None = None
) -> Tensor:
    """Mean squared difference of class maps pooled to size x size, each of unit length if ``normalize``.

    ``mask`` [B, C] selects the maps that count; None selects all.

    >>> cat_loss(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 4, 4), size=1, normalize=False)
    tensor(1.)
    """
    cells = [pool(maps, (size, size)).flatten(2) for maps in (student, teacher)]
    s, t = (unit(c, 2) for c in cells) if normalize else cells
    errors = (s - t).square().mean(dim=2)  # [B, C]
    return errors.mean() if mask is None else (errors * mask).sum() / mask.sum()


@register
class CATKD(PlusKD):
    """Class attention transfer: match where in the image each class is seen.

    Equation: L = ce_weight CE + kd_weight T^2 KL + cat_weight mean (N(pool A^s) - N(pool A^t))^2, A_c(x, y) =
    w_c F(x, y) + b_c the class activation maps, pooled to resolution x resolution; N the identity, or the
    division by a map's norm with normalize=True.

    Deviations: models are not rebuilt; a linear head at every position gives the same maps as the release's
    1x1 convolution. The paper always normalises, the release only between different architectures.
    """

    paper = Paper(
        title="Class Attention Transfer Based Knowledge Distillation",
        authors=("Ziyao Guo", "Haonan Yan", "Hui Li", "Xiaodong Lin"),
        venue="CVPR",
        year=2023,
        arxiv="2304.12777",
        equation="3 and 4",
    )
    family = "feature"
    fidelity = "code"
    space = {
        "cat_weight": log_range(1.5, 150),
    }

    needs: ClassVar[Needs] = Needs(features=True, classifier=True)
    shift_invariant: ClassVar[bool] = False  # maps are compared as they are
    zero_at_match: ClassVar = ("cat",)
    weights: ClassVar = {"ce_weight": "ce", "cat_weight": "cat"}
    positive: ClassVar = ("kd_temperature", "resolution")

    # the release's resnet32x4 to resnet8x4; the weight is 0.7 (resnet56 to 20) to 600 (to ShuffleNets,
    # normalised) by pair
    cat_weight: float = 15.0
    resolution: int = 2
    normalize: bool = False

    def skip(self, context: Context) -> str | None:
        return needs_linear_head("catkd", student=context.student, teacher=context.teacher)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: nn.Module) -> Terms:
        maps = (class_maps(m.features, m.classify) for m in (student, teacher))
        cat = cat_loss(*maps, self.resolution, self.normalize)  # type: ignore[arg-type, call-arg]
        return {**self.task_terms(batch, student.logits, teacher.logits), "cat": self.cat_weight * cat}
