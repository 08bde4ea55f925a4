"""Teachers: their weights, which file a name stands for, their logits."""
