"""Data sets that kdbench knows by name, and their numbers of classes."""

CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200, "imagenet": 1000}
