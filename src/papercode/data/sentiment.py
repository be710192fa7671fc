"""Sentences with a sentiment, and word vectors that know something of it: what a first test of classifiers needs.

A sentence is a run of neutral words with one opinion in it: a positive or a negative word, with or without a negator
right before it, which turns it around. So the label needs two neighbouring words, wherever they stand. The vectors are
as if pre-trained: words of one kind lie around one centre.
"""

import random
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from papercode.data.sequences import pad


@dataclass(frozen=True)
class Sentiment:
    """A small language of opinions. Token 0 is padding; then come positive, negative, negating and neutral words.

    Args:
        n_polar: Positive words, and as many negative ones.
        n_negators: Words that turn the next one around.
        n_neutral: All others.

    Raises:
        ValueError: If there is no word of one of the kinds.
    """

    n_polar: int = 50
    n_negators: int = 4
    n_neutral: int = 200

    def __post_init__(self):
        if min(self.n_polar, self.n_negators, self.n_neutral) < 1:
            raise ValueError(f"{self} needs words of each kind")

    @property
    def kinds(self) -> dict[str, range]:
        """The tokens of each kind of word."""
        ends = [1, 1 + self.n_polar, 1 + 2 * self.n_polar, 1 + 2 * self.n_polar + self.n_negators]
        names = ("positive", "negative", "negator", "neutral")
        return {name: range(*pair) for name, pair in zip(names, zip(ends, [*ends[1:], self.size]))}

    @property
    def size(self) -> int:
        """Of the vocabulary, padding included."""
        return 1 + 2 * self.n_polar + self.n_negators + self.n_neutral

    def sample(
        self, number: int, *, shortest: int = 5, longest: int = 15, negated: float = 0.3, seed: int = 0
    ) -> tuple[Int[Tensor, "b n"], Int[Tensor, " b"]]:
        """Sentences and labels, the same for the same seed.

        Args:
            number: b.
            shortest: Fewest words of a sentence, at least 2.
            longest: Most words of a sentence.
            negated: The share of opinions with a negator.
            seed: Of everything that is random here.

        Returns:
            Tokens, filled up with 0 behind, and labels: 1 positive, 0 negative.

        Raises:
            ValueError: If shortest is not within 2 and longest.
        """
        if not 2 <= shortest <= longest:
            raise ValueError(f"need 2 <= shortest={shortest} <= longest={longest}")
        draw, kinds = random.Random(seed), self.kinds
        sentences, labels = [], []
        for _ in range(number):
            label, turned = draw.random() < 0.5, draw.random() < negated
            opinion = [draw.choice(kinds["positive" if label != turned else "negative"])]
            if turned:
                opinion.insert(0, draw.choice(kinds["negator"]))
            rest = draw.choices(kinds["neutral"], k=draw.randint(shortest, longest) - len(opinion))
            place = draw.randint(0, len(rest))
            sentences.append(rest[:place] + opinion + rest[place:])
            labels.append(int(label))
        return pad(sentences), torch.tensor(labels)

    def documents(
        self, number: int, *, sentences: int = 4, shortest: int = 4, longest: int = 8, seed: int = 0
    ) -> tuple[list[list[list[int]]], Int[Tensor, " b"], Int[Tensor, " b"]]:
        """Documents in which one sentence holds one opinion, without negator, and all others are neutral.

        Args:
            number: b.
            sentences: At most so many in a document; at least 1.
            shortest: Fewest words of a sentence, at least 2.
            longest: Most words of a sentence.
            seed: Of everything that is random here.

        Returns:
            Lists of sentences, which are lists of tokens; labels, 1 positive, 0 negative; which sentence decides.

        Raises:
            ValueError: If sentences is less than 1, or shortest is not within 2 and longest.
        """
        if sentences < 1:
            raise ValueError(f"sentences={sentences} must be at least 1")
        tokens, labels = self.sample(number, shortest=shortest, longest=longest, negated=0.0, seed=seed)
        draw, documents, places = random.Random(f"documents {seed}"), [], []
        for row in tokens.tolist():
            lengths = [draw.randint(shortest, longest) for _ in range(draw.randint(1, sentences) - 1)]
            document = [draw.choices(self.kinds["neutral"], k=length) for length in lengths]
            places.append(draw.randint(0, len(document)))
            document.insert(places[-1], [token for token in row if token])
            documents.append(document)
        return documents, labels, torch.tensor(places)

    def vectors(self, k: int, *, noise: float = 0.5, seed: int = 0) -> Float[Tensor, "v k"]:
        """A vector for each word: the centre of its kind, a standard normal one, and normal noise of its own.

        Args:
            k: Width.
            noise: Standard deviation of what is a word's own, by that of the centres.
            seed: Of centres and noise.
        """
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.zeros(self.size, k)
        for words in self.kinds.values():
            own = torch.randn(len(words), k, generator=generator)
            vectors[words.start : words.stop] = torch.randn(k, generator=generator) + noise * own
        return vectors
