"""A progress that remembers what is said to the user."""

from kdbench.train.callbacks import Progress


class Heard(Progress):
    """``said``: the lines, warnings among them."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.said.append(text)


def never():
    """A stop that never says so."""
    return False


def throw(error):
    """Raise an error that is handed on."""
    raise error
