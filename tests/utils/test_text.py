"""Text for a terminal."""

from kdbench.utils.text import grid


def test_a_grid_is_left_aligned_two_spaces_apart():
    assert grid([("a", 10), ("bcd", 2)]) == "a    10\nbcd  2"


def test_a_grid_folds_its_last_column():
    text = grid([("a", "one two three four"), ("bcd", "five")], width=28)
    assert text == "a    one two three four\nbcd  five"
    text = grid([("a" * 10, "one two three four five"), ("b", "-")], width=32)
    assert text == f"{'a' * 10}  one two three four\n{' ' * 12}five\nb           -"
