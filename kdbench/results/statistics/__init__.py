"""Decision rules: who is best, what differs from the baseline, what was reproduced. Pure functions on frames.

blocks: the error of one table of [blocks x methods], pooled over methods. critical: quantiles for several comparisons
with one. best: which methods are not shown to be worse than the best. baseline: differences to one method.
pairs: the same over several pairs, in two scopes. flips: exact sign-flip tests of all methods at once.
incomplete: gaps, diverged and collapsed runs. reproduced: ours beside a published number. power: what could be seen.
sampling: the error of the test set itself. docs/statistics.md says why, with measured error rates.
"""
