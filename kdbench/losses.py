"""Pure functions that several methods share. B samples, C classes, T temperature; logits are [B, C].

They stay in log space and never index by a mask, so they are exact for logits of any size and need no host sync.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities [B, C], summed over classes -> [B].

    Differentiable in both arguments; a teacher probability of 0 contributes 0 to value and gradient.

    >>> kl(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log())
    tensor([0.1927])
    """
    return (teacher_log_probs.exp() * (teacher_log_probs - student_log_probs)).sum(dim=1)


def soft_cross_entropy(student_log_probs: Tensor, teacher_log_probs: Tensor) -> Tensor:
    """-sum_c p^t_c log p^s_c of log-probabilities [B, C] -> [B]: `kl` plus the teacher's entropy.

    >>> soft_cross_entropy(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log())
    tensor([0.6931])
    """
    return -(teacher_log_probs.exp() * student_log_probs).sum(dim=1)


def soft_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 KL(softmax(t/T) || softmax(s/T)), mean over the batch (Hinton et al., arXiv:1503.02531).

    >>> soft_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 0.0]]), 4.0)
    tensor(1.7751)
    """
    student = (student_logits / temperature).log_softmax(dim=1)
    teacher = (teacher_logits / temperature).log_softmax(dim=1)
    return temperature**2 * kl(student, teacher).mean()


def drop_target(values: Tensor, target: Tensor) -> Tensor:
    """``values`` [B, C] without each row's target column -> [B, C-1], in order.

    >>> drop_target(torch.tensor([[5, 6, 7]]), torch.tensor([1]))
    tensor([[5, 7]])
    """
    columns = torch.arange(values.shape[1] - 1, device=values.device).expand(values.shape[0], -1)
    return values.gather(1, columns + (columns >= target[:, None]))


def split_target(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Split softmax(logits) into its binary part and its rest (DKD, arXiv:2203.08679, section 3).

    Returns ``binary`` [B, 2] = log of (p_y, 1 - p_y) and ``rest`` [B, C-1] = log of the probabilities of the other
    classes, renormalised. 1 - p_y is a log-sum-exp over the rest: exact even where the target is certain.

    >>> binary, rest = split_target(torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([0]))
    >>> binary.exp(), rest.exp()
    (tensor([[0.5000, 0.5000]]), tensor([[0.6000, 0.4000]]))
    """
    others = drop_target(logits, target)
    normaliser = logits.logsumexp(dim=1)
    hit = logits.gather(1, target[:, None]).squeeze(1) - normaliser
    miss = others.logsumexp(dim=1) - normaliser
    return torch.stack([hit, miss], dim=1), others.log_softmax(dim=1)


def standardize(logits: Tensor, eps: float = 1e-7) -> Tensor:
    """Row-wise (z - mean) / (eps + std) with the unbiased std (LSKD, arXiv:2403.01427).

    A constant row gives 0 with gradient 0 (the released code's gradient there is about 1/eps).

    >>> standardize(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[-1.0000,  0.0000,  1.0000]])
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    constant = (centred == 0).all(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)
    std = torch.where(constant, 1.0, variance).sqrt()
    return torch.where(constant, 0.0, centred / (eps + std))


def gram(matrix: Tensor) -> Tensor:
    """M M^T: [B, C] -> [B, B]; of the transposed matrix, [C, C].

    >>> gram(torch.tensor([[1, 2], [0, 3]]))
    tensor([[5, 6],
            [6, 9]])
    """
    return matrix @ matrix.T


def warmup(epoch: float, epochs: int) -> float:
    """min(epoch / epochs, 1), epoch counted from 1; 1 where ``epochs`` is 0.

    >>> [warmup(epoch, 20) for epoch in (1, 10, 30)]
    [0.05, 0.5, 1.0]
    """
    return min(epoch / epochs, 1.0) if epochs else 1.0


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, scale):
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.scale * gradient, None


def scale_gradient(value: Tensor, scale: float) -> Tensor:
    """Return ``value`` with its gradient times ``scale``; a negative scale reverses the gradient.

    >>> value = torch.tensor(3.0, requires_grad=True)
    >>> torch.autograd.grad(scale_gradient(value, -0.5), value)
    (tensor(-0.5000),)
    """
    return _ScaleGradient.apply(value, scale)


def swap_top(logits: Tensor, target: Tensor) -> Tensor:
    """``logits`` [B, C] with the values of each row's top class and target exchanged (SLD, arXiv:2504.20108).

    A row whose top class is the target stays as it is. Differentiable.

    >>> swap_top(torch.tensor([[1.0, 5.0, 3.0], [1.0, 5.0, 3.0]]), torch.tensor([2, 1]))
    tensor([[1., 3., 5.],
            [1., 5., 3.]])
    """
    top = logits.argmax(dim=1, keepdim=True)
    places = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
    source = torch.where(places == top, target[:, None], torch.where(places == target[:, None], top, places))
    return logits.gather(1, source)


def sort_to_target(logits: Tensor, target: Tensor) -> Tensor:
    """``logits`` [B, C] with the largest value at the target, the next ones at the other classes in their old order.

    Parameter-free correction of a teacher that is wrong (Sort-KD, arXiv:2508.16544). Differentiable.

    >>> sort_to_target(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), torch.tensor([3]))
    tensor([[3., 1., 2., 4.]])
    """
    values, order = logits.sort(dim=1, descending=True, stable=True)
    is_target = order == target[:, None]
    # each class's new rank: the target goes first, those that were before it move down by one
    rank = torch.arange(logits.shape[1], device=logits.device).expand_as(logits)
    place = is_target.to(torch.int64).argmax(dim=1, keepdim=True)
    moved = torch.where(is_target, 0, torch.where(rank < place, rank + 1, rank))
    return torch.empty_like(logits).scatter(1, order, values.gather(1, moved))
