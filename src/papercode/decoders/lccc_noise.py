r"""A classifier that tells noise from dialogue, LCCC's second filter [@wang2020large, section 3].

The paper fine-tunes BERT on 110,000 dialogues that people judged. The filter takes any function from dialogues to
numbers, such a BERT too. This one is small enough to be trained on the spot: a logistic regression,
$p(\text{noise}) = \sigma(w^\top x + b)$, where x counts the characters and pairs of characters, hashed into a few
thousand places, and has length 1. It starts from zeros and sees all examples at every step: no randomness.
"""

import math
import random
import zlib
from collections.abc import Sequence

import numpy as np


class NoiseClassifier:
    """Scores dialogues between 0 and 1.

    Args:
        places: Into which features are hashed; two that meet in one cannot be told apart.

    Raises:
        ValueError: If places is less than 1.
    """

    def __init__(self, places: int = 1 << 15):
        if places < 1:
            raise ValueError(f"places={places} must be at least 1")
        self.weight, self.bias = np.zeros(places), 0.0

    def features(self, dialogue: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The places that are not 0, and their values, of length 1 together."""
        counts: dict[int, float] = {}
        for turn in dialogue:
            text = f"\n{turn}\n"  # so that first and last characters are features of their own
            for gram in [*text, *(text[i : i + 2] for i in range(len(text) - 1))]:
                place = zlib.crc32(gram.encode("utf-8", "surrogatepass")) % len(self.weight)
                counts[place] = counts.get(place, 0.0) + 1.0
        values = np.log1p(np.array(list(counts.values())))
        norm = math.sqrt(float(values @ values)) or 1.0
        return np.array(list(counts), dtype=np.int64), values / norm

    def __call__(self, dialogue: Sequence[str]) -> float:
        """The probability that a dialogue is noise."""
        places, values = self.features(dialogue)
        return _sigmoid(float(self.weight[places] @ values) + self.bias)

    def fit(
        self, dialogues: Sequence[Sequence[str]], noise: Sequence[bool], *, steps: int = 200, rate: float = 20.0,
        decay: float = 1e-4,
    ) -> "NoiseClassifier":  # fmt: skip
        """Learns from examples, by gradient descent on the mean of the log-losses.

        Args:
            dialogues: Examples.
            noise: Whether each of them is noise.
            steps: Over all examples.
            rate: Of learning; large, since inputs have length 1 and most features are rare.
            decay: Pulls the weights to zero.

        Returns:
            Itself.

        Raises:
            ValueError: If there is not one answer an example, or only one kind of them.
        """
        answers = np.array([bool(answer) for answer in noise], dtype=float)
        if len(answers) != len(dialogues) or not 0 < answers.sum() < len(answers):
            told = f"{len(dialogues)} dialogues and {len(answers)} answers, {int(answers.sum())} of them noise"
            raise ValueError(f"{told}: need one answer each, and examples of both kinds")
        found = [self.features(dialogue) for dialogue in dialogues]
        places = np.concatenate([p for p, _ in found])
        values = np.concatenate([v for _, v in found])
        rows = np.repeat(np.arange(len(found)), [len(p) for p, _ in found])
        for _ in range(steps):
            logits = np.bincount(rows, values * self.weight[places], len(found)) + self.bias
            wrong = (1 / (1 + np.exp(-logits)) - answers) / len(found)
            slope = np.bincount(places, values * wrong[rows], len(self.weight))
            self.weight -= rate * (slope + decay * self.weight)
            self.bias -= rate * float(wrong.sum()) / 10
        return self


def accuracy(
    scorer, dialogues: Sequence[Sequence[str]], noise: Sequence[bool], threshold: float = 0.5
) -> float:  # fmt: skip
    """The share of dialogues that a scorer puts on the right side of the threshold; NaN if there are none."""
    right = [(scorer(dialogue) > threshold) == bool(answer) for dialogue, answer in zip(dialogues, noise)]
    return sum(right) / len(right) if right else math.nan


def garbled(dialogue: Sequence[str], seed: int) -> list[str]:
    """Noise made of a clean dialogue: the characters of each reply in another order. For tests and demonstrations."""
    draw = random.Random(seed)
    return [dialogue[0], *("".join(draw.sample(turn, len(turn))) for turn in dialogue[1:])]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
