"""Which tags may follow which, read off their names: what a decoder must not say [@ma2016end].

Imports: [`Allowed`][papercode.recurrent.crf.Allowed] is what a CRF takes [@huang2015bidirectional].

A tag is `O`, outside of all entities, or a letter and a type, as in `B-LOC`. In BIO an entity begins with B and goes on
with I. In IOBES it also ends with E, and S is an entity of a single word.

Symbols: b batch, n steps, k tags.

Differences from the paper:
    * The paper uses IOBES and leaves it to training what may follow what; here it can be forced.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from papercode.recurrent.crf import Allowed


def bio(names: Sequence[str]) -> Allowed:
    """I-X only after B-X or I-X; a sentence does not begin with I.

    Args:
        names: The tags, in the order of their numbers.

    Raises:
        ValueError: If a name is neither O nor one of the letters, a dash and a type.
    """
    return _allowed(names, goes_on="I", is_open="BI", letters="BI", must_close=False)


def iobes(names: Sequence[str]) -> Allowed:
    """After B-X and I-X come I-X or E-X and nothing else, after all others O, B or S; first and last likewise.

    Args:
        names: The tags, in the order of their numbers.

    Raises:
        ValueError: If a name is neither O nor one of the letters, a dash and a type.
    """
    return _allowed(names, goes_on="IE", is_open="BI", letters="BIES", must_close=True)


def _allowed(names: Sequence[str], *, goes_on: str, is_open: str, letters: str, must_close: bool) -> Allowed:
    tags = [
        (name[0], name[2:]) for name in names if name == "O" or (name[:1] in letters and name[1:2] == "-" and name[2:])
    ]
    if len(tags) < len(names):
        raise ValueError(f"names={list(names)} must each be O or one of {', '.join(letters)}, a dash and a type")

    def follows(before: tuple[str, str], after: tuple[str, str]) -> bool:
        if after[0] in goes_on:
            return before[0] in is_open and before[1] == after[1]
        return not (must_close and before[0] in is_open)

    outside = ("O", "")
    return Allowed(
        torch.tensor([[follows(before, after) for after in tags] for before in tags]),
        torch.tensor([follows(outside, tag) for tag in tags]),
        torch.tensor([follows(tag, outside) for tag in tags]),
    )


def violations(paths: Int[Tensor, "b n"], allowed: Allowed, lengths: Int[Tensor, " b"] | None = None) -> int:
    """How many pairs of neighbours in the paths are forbidden; the start and the end of a sentence count as neighbours.

    Args:
        paths: Tags by number.
        allowed: What may follow what.
        lengths: How many steps each row has; all n unless given.
    """
    count = 0
    for row, length in zip(paths.tolist(), [paths.shape[1]] * len(paths) if lengths is None else lengths.tolist()):
        path = row[:length]
        count += int(not allowed.start[path[0]]) + int(not allowed.end[path[-1]])
        count += sum(not allowed.transitions[pair] for pair in pairwise(path))
    return count
