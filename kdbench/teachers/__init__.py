"""Teachers: their weights, the catalog of imported ones, their accuracy and their cached logits."""
