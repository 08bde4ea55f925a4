"""Relational representation distillation: similarities to a queue of teacher embeddings, student against teacher.

B samples, K entries of the queue, D size of the learned embeddings.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from kdbench.losses import soft_cross_entropy
from kdbench.method import Batch, Context, Needs, Paper, Terms, Views, log_range
from kdbench.registry import register

from ._adapters import PlusKD, unit


def relation_loss(
    student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy of softmax(f Q^T / T) to softmax(g Q^T / T_t), mean over samples.

    ``student`` f and ``teacher`` g are [B, D], ``queue`` Q is [K, D].

    >>> relation_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.eye(2), 0.5, 0.1)
    tensor(1.1269)
    """
    logs = [
        (embedding @ queue.T / t).log_softmax(dim=1)
        for embedding, t in ((student, temperature), (teacher, teacher_temperature))
    ]
    return soft_cross_entropy(*logs).mean()


def queued(queue: Tensor, pointer: Tensor, new: Tensor) -> Tensor:
    """``queue`` [K, D] with the rows from ``pointer`` on replaced by those of ``new`` [B, D], round the end.

    Of more than K new rows, the last K are taken.

    >>> queued(torch.zeros(3, 1), torch.tensor(2), torch.tensor([[1.0], [2.0]])).flatten()
    tensor([2., 0., 1.])
    """
    new = new[-len(queue) :]
    places = (pointer + torch.arange(len(new), device=queue.device)) % len(queue)
    return queue.index_copy(0, places, new.to(queue.dtype))


class Memory(nn.Module):
    """The student's learned embedding, the teacher's random one, and the queue with the place of its oldest row."""

    weight: Tensor
    bias: Tensor
    queue: Tensor
    pointer: Tensor

    def __init__(self, context: Context, size: int, length: int) -> None:
        super().__init__()
        self.student = nn.Linear(context.student.embedding_size, size)
        teacher = nn.Linear(context.teacher.embedding_size, size)
        self.register_buffer("weight", teacher.weight.detach())
        self.register_buffer("bias", teacher.bias.detach())
        self.register_buffer("queue", normalize(torch.randn(length, size), dim=0))  # by column, as released
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def embed(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both models' outputs at unit length, [B, D] each."""
        return unit(self.student(student)), unit(linear(teacher, self.weight, self.bias))


@register
class RRD(PlusKD):
    """Relational representation distillation: relate a sample to recent teacher embeddings as the teacher does.

    Equation: L = ce_weight CE - rrd_weight / B sum_i sum_k softmax_k(g_i q_k / teacher_temperature) log softmax_k(
    f_i q_k / temperature), f and g linear embeddings of student and teacher at unit length, q_k the last ``queue``
    g, this batch's included.

    Deviations: none known of the code; its docstring gives the two temperatures the other way round. As released,
    the teacher's embedding stays random and the queue begins with a normal matrix whose columns, not rows, have
    unit length. A batch that does not divide the queue goes round its end; the release refuses it.
    """

    paper = Paper(
        title="Relational Representation Distillation",
        authors=("Nikolaos Giakoumoglou", "Tania Stathaki"),
        year=2024,
        arxiv="2407.12073",
    )
    family = "relation"
    fidelity = "code"
    space = {
        "rrd_weight": log_range(0.1, 10),
        "temperature": log_range(0.02, 0.5),
        "teacher_temperature": log_range(0.005, 0.1),
    }

    needs: ClassVar[Needs] = Needs(embedding=True)
    coupled: ClassVar[bool] = True  # the batch is in the queue
    weights: ClassVar = {"ce_weight": "ce", "rrd_weight": "rrd"}
    positive: ClassVar = ("kd_temperature", "temperature", "teacher_temperature", "queue", "size")

    # the release
    rrd_weight: float = 1.0
    temperature: float = 0.1
    teacher_temperature: float = 0.02
    queue: int = 16384
    size: int = 128

    def build(self, context: Context) -> Memory:
        return Memory(context, self.size, self.queue)

    def loss(self, batch: Batch, student: Views, teacher: Views, modules: Memory) -> Terms:
        own, other = modules.embed(student.embedding, teacher.embedding)
        queue = queued(modules.queue, modules.pointer, other)
        value = relation_loss(own, other, queue, self.temperature, self.teacher_temperature)
        return {
            **self.task_terms(batch, student.logits, teacher.logits),
            "rrd": self.rrd_weight * value,
            "_queue": queue,
        }

    def update(self, batch: Batch, student: Views, teacher: Views, modules: Memory, terms: Terms) -> None:
        modules.queue.copy_(terms["_queue"])
        modules.pointer.add_(min(len(batch.target), self.queue)).remainder_(self.queue)
