"""Data sets in canonical order, in memory or streamed, their splits, and the views that networks see."""
