"""Knowledge distillation meets self-supervision: the teacher also shows which rotated image is which.

B samples, C classes, D size of an embedding. Rotated images are in one batch of 3B: first all by one quarter turn,
then all by two, then all by three.
"""

from collections.abc import Iterable
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from kdbench.losses import kl, soft_kl
from kdbench.method import Batch, Context, Method, Needs, Paper, TeacherBatches, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import unit

TURNS = 3


def rank_of(scores: Tensor, target: Tensor) -> Tensor:
    """How many entries of each row of ``scores`` [n, m] are greater than that of its ``target`` [n] -> int64 [n].

    >>> rank_of(torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), torch.tensor([0, 2]))
    tensor([0, 2])
    """
    return (scores > scores.gather(1, target[:, None])).sum(dim=1)


def kept(rank: Tensor, share: float) -> Tensor:
    """How much each row counts: all of rank 0, and ``share`` of the others from the smallest rank on -> [n] in 0..1.

    Where only some rows of one rank are to be kept, each counts in proportion.

    >>> kept(torch.tensor([2, 0, 1, 2, 9]), 0.5)
    tensor([0.5000, 1.0000, 1.0000, 0.5000, 0.0000], dtype=torch.float64)
    """
    wrong = (rank > 0).sum()
    count = len(rank) - wrong + (wrong.double() * share).floor()
    before = (rank < rank[:, None]).sum(dim=1)
    equal = (rank == rank[:, None]).sum(dim=1)
    return ((count - before) / equal).clamp(0, 1)


def weighted_kl(student: Tensor, teacher: Tensor, temperature: float, rows: Tensor) -> Tensor:
    """T^2 KL(softmax(t/T) || softmax(s/T)) of [n, m], mean by the weights ``rows`` [n]; 0 where all are 0.

    >>> weighted_kl(torch.zeros(2, 2), torch.tensor([[4.0, 0.0], [9.0, 0.0]]), 4.0, torch.tensor([1.0, 0.0]))
    tensor(1.7751)
    """
    divergence = kl((student / temperature).log_softmax(dim=1), (teacher / temperature).log_softmax(dim=1))
    rows = rows.to(divergence.dtype)
    return temperature**2 * (rows * divergence).sum() / rows.sum().clamp(min=1)


def similarities(turned: Tensor, plain: Tensor) -> Tensor:
    """Cosine of each of ``turned`` [3B, D] with each of ``plain`` [B, D] -> [3B, B].

    >>> similarities(torch.tensor([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0]]))
    tensor([[1.0000],
            [0.0000],
            [0.7071]])
    """
    return unit(turned) @ unit(plain).T


def own_image(count: int, device: torch.device) -> Tensor:
    """The position among ``count`` images of the one that each rotated image is made from: int64 [3 count]."""
    return torch.arange(count, device=device).repeat(TURNS)


def projection(size: int) -> nn.Sequential:
    """The head of both networks: [n, D] -> [n, D]."""
    return nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))


class Heads(nn.Module):
    """The student's head, which learns with it, and the teacher's, whose weights are buffers."""

    def __init__(self, student_size: int, teacher_size: int) -> None:
        super().__init__()
        self.student, self.teacher = projection(student_size), projection(teacher_size)
        for layer in self.teacher:
            for name, weights in list(layer.named_parameters()):
                delattr(layer, name)
                layer.register_buffer(name, weights.detach())


def fit(head: nn.Module, passes: Iterable[Iterable[tuple[Tensor, Tensor]]], rates: Iterable[float]) -> None:
    """Train the buffers of ``head`` to tell by the cosine which image a rotated one is made from.

    passes: the batches of each epoch, embeddings of plain [B, D] and of rotated images [3B, D]. rates: the learning
    rate of each epoch.
    """
    weights = {name: buffer.clone().requires_grad_() for name, buffer in head.named_buffers()}
    optimizer = torch.optim.SGD(weights.values(), momentum=0.9, weight_decay=5e-4)
    for batches, rate in zip(passes, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for plain, turned in batches:
            with torch.enable_grad():
                projected = functional_call(head, weights, torch.cat([turned, plain]))
                cosines = similarities(*projected.split([len(turned), len(plain)]))
                loss = cross_entropy(cosines, own_image(len(plain), plain.device))
                slopes = torch.autograd.grad(loss, list(weights.values()))
            for weight, slope in zip(weights.values(), slopes, strict=True):
                weight.grad = slope
            optimizer.step()
    for name, buffer in head.named_buffers():
        buffer.copy_(weights[name])


@register
class SSKD(Method):
    """Self-supervised distillation: kd on plain and on rotated images, and the teacher's guess which belong together.

    Equation: L = ce_weight CE(s_0) + kd_weight T^2 mean_i KL(p^t_{i,0} || p^s_{i,0})
    + tf_weight T_tf^2 mean_{i,r} KL(p^t_{i,r} || p^s_{i,r}) + ss_weight T_ss^2 mean_{i,r} KL(a^t_{i,r} || a^s_{i,r}),
    r = 1..3 quarter turns, a_{i,r} = softmax_j(cos(h(f_{i,r}), h(f_{j,0}))/T_ss) over the batch, h a two-layer head on
    the embedding f. The last two means are over the rows where the teacher is right and a share of the others
    (tf_share, ss_share), those where it ranks the truth highest.

    Deviations: the four rotations are of the same crop; the release draws a crop for each. Each rotation passes the
    student on its own, so BatchNorm's statistics are those of one rotation; the release passes all four at once. Where
    only some of the rows of one rank are kept, the release takes some of them, here each counts in proportion. The
    teacher's head is trained for head_share of the student's epochs (60 of 240, as released; the rate is divided by 10
    at one half and at three quarters of them) before the student's training begins, and from the start again where it
    was stopped. Published numbers are of teachers that are stronger than the usual ones.
    """

    paper = Paper(
        title="Knowledge Distillation Meets Self-Supervision",
        authors=("Guodong Xu", "Ziwei Liu", "Xiaoxiao Li", "Chen Change Loy"),
        venue="ECCV",
        year=2020,
        arxiv="2006.07114",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "temperature": log_range(1.0, 16.0),
        "kd_weight": log_range(0.09, 9.0),
        "tf_weight": log_range(0.27, 27.0),
        "ss_weight": log_range(1.0, 100.0),
        "tf_temperature": log_range(1.0, 16.0),
        "ss_temperature": log_range(0.1, 2.0),
    }

    needs: ClassVar[Needs] = Needs(views=("weak", "weak@1", "weak@2", "weak@3"), embedding=True)
    coupled: ClassVar[bool] = True
    weights: ClassVar = {"ce_weight": "ce", "kd_weight": "kd", "tf_weight": "tf", "ss_weight": "ss"}
    zero_at_match: ClassVar = ("kd", "tf")
    positive: ClassVar = ("temperature", "tf_temperature", "ss_temperature", "head_share", "head_rate")
    ablate: ClassVar = {"ss_weight": (0.0,), "tf_weight": (0.0,)}

    # the release's CIFAR-100 settings
    temperature: float = 4.0
    tf_temperature: float = 4.0
    ss_temperature: float = 0.5
    ce_weight: float = 0.1
    kd_weight: float = 0.9
    tf_weight: float = 2.7
    ss_weight: float = 10.0
    tf_share: float = 1.0
    ss_share: float = 0.75
    head_share: float = 0.25
    head_rate: float = 0.05

    def build(self, context: Context) -> Heads:
        return Heads(context.student.embedding_size, context.teacher.embedding_size)

    def prepare(self, context: Context, teacher_batches: TeacherBatches, modules: Heads) -> None:
        epochs = ceil(self.head_share * context.epochs)
        passes = (
            ((t.embedding, self._turned(t)[1]) for _, t in teacher_batches.epoch(number))
            for number in range(epochs)
        )
        rates = (self.head_rate * 0.1 ** ((2 * n >= epochs) + (4 * n >= 3 * epochs)) for n in range(epochs))
        fit(modules.teacher, passes, rates)

    def _turned(self, model: Views) -> tuple[Tensor, Tensor]:
        """Logits [3B, C] and embeddings [3B, D] of the rotated images."""
        turned = [model[view] for view in self.needs.views[1:]]
        return torch.cat([v.logits for v in turned]), torch.cat([v.embedding for v in turned])

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Heads) -> Terms:
        s, t = student.logits, teacher.logits
        (s_turned, s_embedding), (t_turned, t_embedding) = self._turned(student), self._turned(teacher)
        s_cosines = similarities(modules.student(s_embedding), modules.student(student.embedding))
        t_cosines = similarities(modules.teacher(t_embedding), modules.teacher(teacher.embedding))
        right = kept(rank_of(t_turned, batch.target.repeat(TURNS)), self.tf_share)
        own = kept(rank_of(t_cosines, own_image(len(s), s.device)), self.ss_share)
        return {
            "ce": self.ce_weight * cross_entropy(s, batch.target),
            "kd": self.kd_weight * soft_kl(s, t, self.temperature),
            "tf": self.tf_weight * weighted_kl(s_turned, t_turned, self.tf_temperature, right),
            "ss": self.ss_weight * weighted_kl(s_cosines, t_cosines, self.ss_temperature, own),
        }
