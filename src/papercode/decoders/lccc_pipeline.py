"""From raw dialogues to clean ones, with an account of what was done and why [@wang2020large, section 3].

Imports: the edits and rules (same paper).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from papercode.decoders.lccc_rules import EDITS, RULES, bare, generic, same_as_post

REPLY_RULES: Mapping[str, Callable[[str], bool]] = {"generic": generic}
"""Rules for all turns but the first."""


@dataclass(frozen=True)
class Removal:
    """What was left out, and why.

    Attributes:
        reason: Name of the rule.
        turn: The number of the bad turn, from 0; None if the reason lies in the dialogue as a whole.
        turns: The piece of dialogue that is lost, edited already.
    """

    reason: str
    turn: int | None
    turns: list[str]


@dataclass
class Report:
    """Counts of everything that happened.

    Attributes:
        read: Dialogues that came in.
        kept: Dialogues that went out; may be more than came in, since long ones are cut.
        untouched: Dialogues that came out exactly as they went in.
        split: Dialogues that were cut because they are too long.
        edited: Turns that an edit changed, by its name.
        removed: Removals by their reason.
        examples: The first removals for each reason.
    """

    read: int = 0
    kept: int = 0
    untouched: int = 0
    split: int = 0
    edited: Counter = field(default_factory=Counter)
    removed: Counter = field(default_factory=Counter)
    examples: dict[str, list[Removal]] = field(default_factory=dict)

    def add(self, removal: Removal, shown: int = 3) -> None:
        """Counts a removal, and keeps it for an example if there are fewer than `shown`."""
        self.removed[removal.reason] += 1
        kept = self.examples.setdefault(removal.reason, [])
        if len(kept) < shown:
            kept.append(removal)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; reasons from the most to the least common."""
        return {
            "read": self.read,
            "kept": self.kept,
            "untouched": self.untouched,
            "split": self.split,
            "edited": dict(self.edited.most_common()),
            "removed": dict(self.removed.most_common()),
            "examples": {
                reason: [{"turn": r.turn, "turns": r.turns} for r in self.examples[reason]]
                for reason, _ in self.removed.most_common()
            },
        }


class Cleaner:
    """Edits every turn, cuts what is too long, and removes what breaks a rule.

    Args:
        edits: Done to every turn, in this order.
        rules: Names and rules for every turn.
        reply_rules: The same for turns from the second on.
        noise: Scores a dialogue from 0, clean, to 1, noise: a classifier. None = no such filter.
        threshold: A score above it removes the dialogue.
        most_turns: A longer dialogue is cut into pieces of this length.
        salvage: Whether a bad turn costs that turn only, and the dialogue is cut there; the paper removes all of it.
        once: Whether a dialogue that came before is removed.

    Raises:
        ValueError: If most_turns is less than 2, or threshold not between 0 and 1.
    """

    def __init__(
        self,
        edits: Mapping[str, Callable[[str], str]] = EDITS,
        rules: Mapping[str, Callable[[str], bool]] = RULES,
        reply_rules: Mapping[str, Callable[[str], bool]] = REPLY_RULES,
        *,
        noise: Callable[[Sequence[str]], float] | None = None,
        threshold: float = 0.5,
        most_turns: int = 30,
        salvage: bool = False,
        once: bool = True,
    ):
        if most_turns < 2:
            raise ValueError(f"most_turns={most_turns} must be at least 2: a post and its reply")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must be between 0 and 1")
        self.edits, self.rules, self.reply_rules = edits, rules, reply_rules
        self.noise, self.threshold = noise, threshold
        self.most_turns, self.salvage, self.once = most_turns, salvage, once
        self.report = Report()
        self._seen: set[int] = set()

    def clean(self, dialogue: Sequence[str]) -> tuple[list[list[str]], list[Removal]]:
        """What is kept of a dialogue, in pieces, and what is not; the report counts both."""
        report = self.report
        report.read += 1
        turns = [self.edited(turn) for turn in dialogue]
        pieces = [turns[i : i + self.most_turns] for i in range(0, len(turns), self.most_turns)] or [[]]
        report.split += len(pieces) > 1
        kept: list[list[str]] = []
        removed: list[Removal] = []
        for piece in pieces:
            self._judge(piece, kept, removed)
        report.kept += len(kept)
        report.untouched += kept == [list(dialogue)]
        for removal in removed:
            report.add(removal)
        return kept, removed

    def edited(self, turn: str) -> str:
        """The turn after all edits, which are done again until nothing changes: one may bring another to light."""
        while True:
            before = turn
            for name, edit in self.edits.items():
                changed = edit(turn)
                if changed != turn:
                    self.report.edited[name] += 1
                turn = changed
            if turn == before:
                return turn

    def _judge(self, piece: list[str], kept: list[list[str]], removed: list[Removal]) -> None:
        start = 0  # of the stretch that may still be good
        for number in range(len(piece)):
            reason = self._reason(piece, number, number == start)
            if reason is None:
                continue
            if not self.salvage:
                removed.append(Removal(reason, number, piece))
                return
            if number > start:
                self._finish(piece[start:number], kept, removed)
            removed.append(Removal(reason, number, [piece[number]]))
            start = number + 1
        if start < len(piece) or not piece:
            self._finish(piece[start:], kept, removed)

    def _reason(self, piece: list[str], number: int, first: bool) -> str | None:
        turn = piece[number]
        for name, rule in self.rules.items():
            if rule(turn):
                return name
        if not first:
            for name, rule in self.reply_rules.items():
                if rule(turn):
                    return name
            if same_as_post(turn, piece[number - 1]):
                return "same as post"
        return None

    def _finish(self, turns: list[str], kept: list[list[str]], removed: list[Removal]) -> None:
        """Rules for a stretch of good turns."""
        key = hash(tuple(map(bare, turns)))
        if len(turns) < 2:
            removed.append(Removal("nobody replies", None, turns))
        elif self.once and key in self._seen:
            removed.append(Removal("seen before", None, turns))
        elif self.noise is not None and self.noise(turns) > self.threshold:
            removed.append(Removal("noise", None, turns))
        else:
            self._seen.add(key)
            kept.append(turns)
