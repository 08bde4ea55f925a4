"""Data sets in canonical order, in memory or streamed, their splits, and the views that networks see."""

from kdbench.data.feed import Feed
from kdbench.data.measure import mean_std
from kdbench.data.sets import Dataset, ImageSet, Split, duplicates, limit, split
from kdbench.data.sources import load, load_folder, load_npz
from kdbench.data.stream import FileSet, count_duplicates, image_folder, list_images, open_feed
from kdbench.data.views import Draws, View, draw, plain, render

__all__ = [
    "Dataset",
    "Draws",
    "Feed",
    "FileSet",
    "ImageSet",
    "Split",
    "View",
    "count_duplicates",
    "draw",
    "duplicates",
    "image_folder",
    "limit",
    "list_images",
    "load",
    "load_folder",
    "load_npz",
    "mean_std",
    "open_feed",
    "plain",
    "render",
    "split",
]
