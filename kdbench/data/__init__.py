"""Data sets as uint8 tensors in canonical order, their splits, and the views that networks see."""

from kdbench.data.sets import Dataset, ImageSet, Split, limit, split
from kdbench.data.sources import load
from kdbench.data.views import Draws, View, draw, plain, render

__all__ = [
    "Dataset",
    "Draws",
    "ImageSet",
    "Split",
    "View",
    "draw",
    "limit",
    "load",
    "plain",
    "render",
    "split",
]
