"""Sentences with a known answer to "which words decide?", to measure attention by.

The usual task of this lab, the parity of a sum of random word numbers, can't be learnt from
examples, so its attention explains noise. Here a few words decide the label, a small network can
learn the rule, and the generator says where these words stand:

- `negation`: one opinion among fillers, such as `good`, and one `not`. The label is the opinion's
  sign, turned round if `not` stands right before it. Deciding: the opinion and the word before it.
  Every sentence has exactly one of each, so the bag of words says nothing: 50 %.
- `marked`: three stars, a colour after each, and colours without a star. The label is the colour
  after the *first* star. Deciding: that star and that colour.
- `recall`: four pairs `name colour`, at the end a question `? name`. The label is this name's
  colour. Deciding: the pair that was asked for.

Sentences have 60 to 100 % of the full length and are padded with 0 at their end.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

import labkit

TaskName = Literal["negation", "marked", "recall"]
TASKS: tuple[TaskName, ...] = ("negation", "marked", "recall")

GOOD = ("good", "great", "fine", "superb")
BAD = ("bad", "poor", "dull", "awful")
COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink")
NAMES = ("anna", "ben", "clara", "david", "emma", "felix", "greta", "hugo")
FILLERS = (
    "the", "a", "this", "film", "plot", "scene", "actor", "voice", "light", "music",
    "here", "there", "with", "from", "under", "over", "and", "or", "then", "soon",
)  # fmt: skip
WORDS = ("", "not", "*", "?", *GOOD, *BAD, *COLOURS, *NAMES, *FILLERS)
"""The vocabulary; a word's number is its place, 0 is padding."""
NUMBER = {word: number for number, word in enumerate(WORDS)}
SHORTEST = 20
"""Smallest full length: the shortest sentence has 12 words."""
STARS, PAIRS = 3, 4
COUNTS = {"train": 10_000, "validation": 1_000, "test": 2_000}


def labels_of(task: TaskName) -> tuple[str, ...]:
    """Names of the task's labels, in the order of their numbers."""
    return ("negative", "positive") if task == "negation" else COLOURS


@dataclass(frozen=True)
class Sentences(labkit.Part):
    """Generated sentences, one row each.

    `x` is (n, length) int32, numbers of words, 0 for padding; `y` is (n,) int32, labels.
    """

    deciding: np.ndarray
    """(n, length) bool: True for the words that decide."""

    def words(self, index: int) -> list[str]:
        """The words of sentence `index`, without padding."""
        return [WORDS[token] for token in self.x[index] if token]


@cache
def load(choice: labkit.DataChoice, smoke: bool, task: TaskName, length: int) -> labkit.Data:
    """10,000, 1,000 and 2,000 sentences, 64 each with `smoke`, of at most `length` words.

    They are the same for every `choice`, whose `real` a script refuses. The parts' generators share
    no seed. Raises `ValueError` for a `length` below 20.
    """
    parts = {
        part: draw(task, 64 if smoke else count, length, [number, length, TASKS.index(task)])
        for number, (part, count) in enumerate(COUNTS.items())
    }
    return labkit.Data(f"simulated:{task}", **parts)


def draw(task: TaskName, count: int, length: int, seed: list[int]) -> Sentences:
    """`count` sentences of at most `length` words from the generator keyed by `seed`.

    Raises `ValueError` for a `length` below 20: the words of a task would not fit.
    """
    if length < SHORTEST:
        raise ValueError(f"length must be {SHORTEST} or more, got {length}")
    rng = np.random.default_rng(seed)
    tokens = np.zeros((count, length), np.int32)
    labels = np.zeros(count, np.int32)
    deciding = np.zeros((count, length), bool)
    fillers = np.array([NUMBER[word] for word in FILLERS])
    write = {"negation": _negation, "marked": _marked, "recall": _recall}[task]
    for row in range(count):
        size = rng.integers(int(np.ceil(0.6 * length)), length + 1)
        tokens[row, :size] = rng.choice(fillers, size)
        labels[row], where = write(tokens[row, :size], rng)
        deciding[row, where] = True
    return Sentences(tokens, labels, deciding)


def _places(rng: np.random.Generator, size: int, count: int) -> np.ndarray:
    """`count` places for pairs of words in a sentence of `size`, in order, none overlapping."""
    return np.sort(rng.choice(size - count, count, replace=False)) + np.arange(count)


def _negation(sentence: np.ndarray, rng: np.random.Generator) -> tuple[int, list[int]]:
    first, second = _places(rng, len(sentence), 2)
    opinion, other = (first, second) if rng.integers(2) else (second, first)
    positive, negated = rng.integers(2), rng.integers(2)
    sentence[opinion + 1] = NUMBER[rng.choice(GOOD if positive else BAD)]
    sentence[opinion if negated else other] = NUMBER["not"]
    return int(positive != negated), [opinion, opinion + 1]


def _marked(sentence: np.ndarray, rng: np.random.Generator) -> tuple[int, list[int]]:
    colours = np.array([NUMBER[word] for word in COLOURS])
    loose = rng.choice(len(sentence), STARS, replace=False)
    sentence[loose] = rng.choice(colours, STARS)
    places = _places(rng, len(sentence), STARS)
    sentence[places] = NUMBER["*"]
    sentence[places + 1] = rng.choice(colours, STARS)
    first = places[0]
    return int(sentence[first + 1] - colours[0]), [first, first + 1]


def _recall(sentence: np.ndarray, rng: np.random.Generator) -> tuple[int, list[int]]:
    names = rng.choice([NUMBER[word] for word in NAMES], PAIRS, replace=False)
    colours = rng.integers(len(COLOURS), size=PAIRS)
    places = _places(rng, len(sentence) - 2, PAIRS)
    sentence[places] = names
    sentence[places + 1] = NUMBER[COLOURS[0]] + colours
    asked = rng.integers(PAIRS)
    sentence[-2:] = NUMBER["?"], names[asked]
    return int(colours[asked]), [places[asked], places[asked] + 1]
