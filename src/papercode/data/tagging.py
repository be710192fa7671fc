"""News in miniature, with the names of people, places and companies tagged: a corpus for sequence labelling.

Names are made up of syllables, so that most names of a test set were never seen in training. What a name is shows in
its end (-son, -ville), in its neighbours (`in …`, `… Ltd`), or only in both: the person in `Moderson Ltd` is part of a
company, and so is the place in `Bank of Milaville`.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from papercode.data.sequences import pad

Sentence = tuple[list[str], list[str]]
"""Words and their tags."""

TYPES = ["LOC", "ORG", "PER"]
"""Places, companies, people."""

FRAMES = [
    "yesterday PER met PER in LOC .",
    "PER left LOC for LOC .",
    "ORG hired PER in May .",
    "shares of ORG fell , said PER .",
    "ANY was in the news .",
    "everybody speaks of ANY .",
    "ANY praised ANY and ANY .",
    "nobody knows ANY , ANY or ANY .",
]
"""Sentences with places for names, of a type or of any."""


def _name(draw: random.Random, ends: Sequence[str]) -> str:
    syllables = (draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(draw.randint(2, 3)))
    return ("".join(syllables) + draw.choice("lnr") + draw.choice(ends)).capitalize()


def _entity(draw: random.Random, kind: str) -> list[str]:
    person, place = _name(draw, ["son", "ski", "er"]), _name(draw, ["ville", "burg", "ton"])
    if kind == "PER":
        return [_name(draw, ["a", "o"]), person] if draw.random() < 0.5 else [person]
    if kind == "LOC":
        return ["New", place] if draw.random() < 0.3 else [place]
    return [person, "Ltd"] if draw.random() < 0.5 else ["Bank", "of", place]


def sentences(n: int, *, seed: int = 0) -> list[Sentence]:
    """Sentences with their tags in BIO, the same for the same seed.

    Args:
        n: How many.
        seed: Of frames and names.

    Raises:
        ValueError: If n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    draw, corpus = random.Random(seed), []
    for _ in range(n):
        words, tags = [], []
        for slot in draw.choice(FRAMES).split():
            kind = draw.choice(TYPES) if slot == "ANY" else slot
            name = _entity(draw, kind) if kind in TYPES else [slot]
            words += name
            tags += [f"B-{kind}"] + [f"I-{kind}"] * (len(name) - 1) if kind in TYPES else ["O"]
        corpus.append((words, tags))
    return corpus


def bio_to_iobes(tags: Sequence[str]) -> list[str]:
    """The same spans with their ends marked: the last word of a span becomes E, the only one S.

    Args:
        tags: Well-formed BIO.

    Raises:
        ValueError: If an I does not follow B or I of its type.
    """
    for before, after in pairwise(["O", *tags]):
        if after[0] == "I" and before not in (after, f"B{after[1:]}"):
            raise ValueError(f"tags={list(tags)}: {after} after {before} is not BIO")
    marked = []
    for tag, following in pairwise([*tags, "O"]):
        last = following != f"I{tag[1:]}"
        marked.append({"B": "S", "I": "E"}[tag[0]] + tag[1:] if last and tag != "O" else tag)
    return marked


@dataclass
class Vocabulary:
    """Numbers for words, characters and tags. 0 is padding, 1 stands for all that are unknown.

    Args:
        words: Those that have a number, from 2.
        chars: Likewise.
        tags: From 0.
    """

    words: list[str]
    chars: list[str]
    tags: list[str]

    @classmethod
    def of(cls, corpus: Sequence[Sentence], *, at_least: int = 2) -> "Vocabulary":
        """That of a corpus.

        Args:
            corpus: Sentences with tags.
            at_least: A word that is rarer stays unknown, so that a model learns what to do with such words.
        """
        counts = Counter(word for words, _ in corpus for word in words)
        return cls(
            sorted(word for word, count in counts.items() if count >= at_least),
            sorted({char for word in counts for char in word}),
            sorted({tag for _, tags in corpus for tag in tags}),
        )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many different words and characters, padding and the unknown included, and tags."""
        return len(self.words) + 2, len(self.chars) + 2, len(self.tags)

    def tensors(
        self, corpus: Sequence[Sentence]
    ) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n c"], Int[Tensor, "b n"], Int[Tensor, " b"]]:
        """Words, characters, tags and lengths of sentences as one batch; 0 is what fills up.

        Raises:
            ValueError: If a tag is not among those known.
        """
        word, char = ({text: i for i, text in enumerate(texts, 2)} for texts in (self.words, self.chars))
        tag = {text: i for i, text in enumerate(self.tags)}
        if missing := sorted({name for _, names in corpus for name in names} - set(tag)):
            raise ValueError(f"tags {missing} are not among {self.tags}")
        longest = max(len(words) for words, _ in corpus)
        spelled = [
            [char.get(c, 1) for c in text] for words, _ in corpus for text in words + [""] * (longest - len(words))
        ]
        return (
            pad([[word.get(text, 1) for text in words] for words, _ in corpus]),
            pad(spelled).unflatten(0, (len(corpus), longest)),
            pad([[tag[name] for name in names] for _, names in corpus]),
            torch.tensor([len(words) for words, _ in corpus]),
        )

    def names(self, paths: Int[Tensor, "b n"], lengths: Int[Tensor, " b"]) -> list[list[str]]:
        """Tags by number, as a model gives them, as tags by name, without the padding."""
        return [[self.tags[i] for i in row[:length]] for row, length in zip(paths.tolist(), lengths.tolist())]
