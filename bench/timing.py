# SPDX-License-Identifier: Apache-2.0
"""Contenders measured in turn, so that whatever the machine does meanwhile befalls them alike."""

import random
from statistics import median
from time import monotonic

# A turn repeats what is quick until it takes about so many seconds: the clock and the wake-up must
# not show.
TURN = 0.02


class Row:
    """One contender's cost of one thing: a value for each turn, in ``unit`` (s, KiB, count)."""

    def __init__(self, bench, what, size, who, samples, unit="s"):
        self.key = (bench, what, size, who)
        self.samples = samples
        self.unit = unit

    @property
    def median(self):
        return median(self.samples)

    @property
    def spread(self):
        """The lower and the upper quartile."""
        return quartiles(self.samples)

    def of_turn(self, turn):
        """The value of a turn; the median where it had none."""
        return self.samples[turn] if turn < len(self.samples) else self.median

    def summary(self):
        bench, what, size, who = self.key
        low, high = self.spread
        return {
            "bench": bench,
            "what": what,
            "size": size,
            "who": who,
            "median": self.median,
            "low": low,
            "high": high,
            "turns": len(self.samples),
            "unit": self.unit,
        }


def quartiles(samples):
    ordered = sorted(samples)
    last = len(ordered) - 1
    return ordered[round(last * 0.25)], ordered[round(last * 0.75)]


def in_turn(contenders, turns, seconds, least=3):
    """Call each contender once a turn, and return a list of what each call returned, by name.

    Each gets that many turns, and an equal part of the seconds: one that has used up its part after
    the ``least`` turns or more drops out. The order is another one each turn: who comes next finds
    the caches as the one before has left them.
    """
    order = list(contenders.items())
    shuffle = random.Random(0).shuffle
    samples = {name: [] for name in contenders}
    spent = dict.fromkeys(contenders, 0.0)
    for turn in range(turns):
        for name, contender in order:
            if turn < least or spent[name] < seconds / len(contenders):
                begun = monotonic()
                samples[name].append(contender())
                spent[name] += monotonic() - begun
        shuffle(order)
    return samples


def repeats(seconds):
    """How often to repeat in a turn what takes so long once."""
    return max(1, min(1000, int(TURN / seconds)))
