"""The textbook formulas in plain Python on lists: what the tensor code is held against."""

from math import exp, log, sqrt


def softmax(row, temperature=1.0):
    powers = [exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


def kl(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def cross_entropy(logits, target):
    return mean(-log(softmax(row)[y]) for row, y in zip(logits, target, strict=True))


def without(row, place):
    return [value for i, value in enumerate(row) if i != place]


def renormalised(row):
    return [value / sum(row) for value in row]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a, b):
    return dot(a, b) / sqrt(dot(a, a) * dot(b, b))


def transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def standardized(row):
    centre = mean(row)
    std = sqrt(sum((z - centre) ** 2 for z in row) / (len(row) - 1))
    return [(z - centre) / (1e-7 + std) for z in row]


def soft_kl(student, teacher, temperature):
    pairs = zip(student, teacher, strict=True)
    return temperature**2 * mean(kl(softmax(t, temperature), softmax(s, temperature)) for s, t in pairs)


def dkd(student_row, teacher_row, y, temperature):
    """(target part, non-target part) of one sample, both times T^2."""
    p, q = (softmax(row, temperature) for row in (teacher_row, student_row))
    binary = kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
    rest = kl(renormalised(without(p, y)), renormalised(without(q, y)))
    return temperature**2 * binary, temperature**2 * rest


def nkd(student_row, teacher_row, y, temperature):
    """(target term, T^2 cross-entropy of the renormalised others) of one sample."""
    hit = -softmax(teacher_row)[y] * log(softmax(student_row)[y])
    p, q = (softmax(without(row, y), temperature) for row in (teacher_row, student_row))
    return hit, -(temperature**2) * dot(p, [log(x) for x in q])
