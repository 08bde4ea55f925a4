"""Contrastive representation distillation: embeddings agree with the teacher's of the same sample only.

B samples, N train samples, D size of the learned embeddings, K negatives per sample.
"""

from math import sqrt
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit

EPS = 1e-7
CELLS = 2**24  # most entries of a B x N matrix that are computed at once


def scores(anchors: Tensor, memory: Tensor, index: Tensor, temperature: float) -> Tensor:
    """exp(<anchor, row> / T) -> [B, 1 + K]; ``anchors`` [B, D], ``memory`` [N, D], ``index`` [B, 1 + K].

    Computes all N products for a few anchors at a time, which needs less memory than K rows of D numbers per anchor.

    >>> scores(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([[0, 1]]), temperature=1.0)
    tensor([[2.7183, 1.0000]])
    """
    rows = max(1, CELLS // len(memory))
    parts = zip(anchors.split(rows), index.split(rows), strict=True)
    return torch.cat([((a @ memory.T) / temperature).gather(1, i) for a, i in parts]).exp()


def contrast_loss(found: Tensor, normaliser: Tensor, count: int) -> Tensor:
    """Noise-contrastive loss of `scores` [B, 1 + K], the positive first; K uniform draws of N = ``count``.

    >>> contrast_loss(torch.tensor([[1.0, 1.0]]), torch.tensor(1.0), count=1)
    tensor(1.3863)
    """
    noise = (found.shape[1] - 1) / count
    probs = found / normaliser
    positive = (probs[:, 0] / (probs[:, 0] + noise + EPS)).log()
    negative = (noise / (probs[:, 1:] + noise + EPS)).log().sum(dim=1)
    return -(positive + negative).mean()


def draw_negatives(
    index: Tensor, labels: Tensor, count: int, distinct: bool, generator: torch.Generator
) -> Tensor:
    """Draw positions in the train set whose label differs from that of ``index`` [B] -> [B, count]; ``labels`` [N].

    >>> draw_negatives(torch.tensor([0]), torch.tensor([0, 0, 1]), 1, True, torch.Generator())
    tensor([[2]])
    """
    parts = []
    for rows in index.split(max(1, CELLS // len(labels))):
        others = labels != labels[rows][:, None]  # [B, N]
        if distinct:
            keys = torch.rand(others.shape, generator=generator, device=labels.device)
            parts.append(torch.where(others, keys, -1.0).topk(count, sorted=False).indices)
        else:
            parts.append(torch.multinomial(others.float(), count, replacement=True, generator=generator))
    return torch.cat(parts)


class Banks(nn.Module):
    """Learned embeddings of both models and, for every train sample, the last ones.

    ``normaliser`` holds Z of student and teacher anchors; 0 until the first batch has set it.
    """

    student_memory: Tensor
    teacher_memory: Tensor
    labels: Tensor
    normaliser: Tensor

    def __init__(self, context: Context, size: int, negatives: int) -> None:
        super().__init__()
        self.student = nn.Linear(context.student.embedding_size, size)
        self.teacher = nn.Linear(context.teacher.embedding_size, size)
        bound = sqrt(3 / size)
        for role in ("student", "teacher"):
            bank = torch.empty(context.train_size, size).uniform_(-bound, bound)
            self.register_buffer(f"{role}_memory", bank)
        self.register_buffer("labels", context.train_targets.clone())
        self.register_buffer("normaliser", torch.zeros(2))
        most = int(torch.bincount(context.train_targets).max())
        self.distinct = negatives <= context.train_size - most

    def embed(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both models' outputs at unit length, [B, D] each."""
        return unit(self.student(student)), unit(self.teacher(teacher))

    def losses(
        self, student: Tensor, teacher: Tensor, index: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of both anchors [2] and Z [2]; ``index`` [B, 1 + K] begins with the samples themselves."""
        count = len(self.labels)
        pairs = ((student, self.teacher_memory), (teacher, self.student_memory))
        found = [scores(anchors, memory, index, temperature) for anchors, memory in pairs]
        first = torch.stack([f.detach().mean() for f in found]) * count
        z = torch.where(self.normaliser > 0, self.normaliser, first.to(self.normaliser.dtype))
        return torch.stack([contrast_loss(f, z[i], count) for i, f in enumerate(found)]), z

    def renew(self, index: Tensor, student: Tensor, teacher: Tensor, momentum: float) -> None:
        """Move the rows ``index`` [B] towards the embeddings, at unit length."""
        for memory, new in ((self.student_memory, student), (self.teacher_memory, teacher)):
            memory.index_copy_(0, index, unit(momentum * memory[index] + (1 - momentum) * new))


@register
class CRD(PlusKD):
    """Contrastive representation distillation: tell a sample's teacher embedding from those of other samples.

    Equation: L = ce_weight CE + kd_weight T^2 KL - crd_weight / B sum_i [log h(i, i) + sum_k log(1 - h(i,
    k))], once with anchors of the student and the teacher's memory, once the other way round; h = P / (P +
    K/N + eps), P = exp(<e_i, m_k>/temperature) / Z, e learned embeddings of unit length, m their moving
    averages, k over K train samples of other classes, Z = N times the mean score of the first batch.

    Deviations: none known. As released, negatives are drawn without replacement (with replacement where the
    train set has fewer than K samples of other classes), and the teacher's embedding learns too.
    """

    paper = Paper(
        title="Contrastive Representation Distillation",
        authors=("Yonglong Tian", "Dilip Krishnan", "Phillip Isola"),
        venue="ICLR",
        year=2020,
        arxiv="1910.10699",
        equation="17 and 18",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "crd_weight": log_range(0.08, 8),
        "temperature": log_range(0.02, 0.3),
    }

    needs: ClassVar[Needs] = Needs(embedding=True, index=True)
    coupled: ClassVar[bool] = True  # Z, in the first batch
    version: ClassVar[int] = 2  # 1 drew the numbers that the modules or the dropout began with, too
    weights: ClassVar = {"ce_weight": "ce", "crd_weight": "crd"}
    positive: ClassVar = ("kd_temperature", "temperature", "negatives", "size")

    # RepDistiller, CIFAR-100 and ImageNet
    crd_weight: float = 0.8
    temperature: float = 0.07
    negatives: int = 16384
    size: int = 128
    momentum: float = 0.5

    def build(self, context: Context) -> Banks:
        return Banks(context, self.size, self.negatives)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Banks) -> Terms:
        own, other = modules.embed(student.embedding, teacher.embedding)
        negatives = draw_negatives(
            batch.index, modules.labels, self.negatives, modules.distinct, batch.generator
        )
        index = torch.cat([batch.index[:, None], negatives], dim=1)
        losses, z = modules.losses(own, other, index, self.temperature)
        crd = self.crd_weight * losses.sum()
        kept = {"_student": own, "_teacher": other, "_z": z}
        return {**self.task_terms(batch, student.logits, teacher.logits), "crd": crd, **kept}

    def update(self, batch: Batch, student: Views, teacher: Views, modules: Banks, terms: Terms) -> None:
        modules.normaliser.copy_(terms["_z"])
        modules.renew(batch.index, terms["_student"], terms["_teacher"], self.momentum)
