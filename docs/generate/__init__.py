"""The parts of the documentation that the code says itself, written by `python -m docs.generate`."""
