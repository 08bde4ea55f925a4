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


class Lanes(Heard):
    """Notes the steps of each lane, and calls ``begun`` when a cohort begins."""

    def __init__(self, begun=lambda: None, said=None, number=None):
        super().__init__()
        self.said = self.said if said is None else said
        self.begun, self.number, self.lanes, self.steps = begun, number, {}, 0

    def lane(self, number):
        self.lanes[number] = Lanes(self.begun, self.said, number)
        return self.lanes[number]

    def begin(self, cells, epochs, steps, done):
        self.begun()

    def step(self, images):
        self.steps += 1


def never():
    """A stop that never says so."""
    return False


def throw(error):
    """Raise an error that is handed on."""
    raise error
