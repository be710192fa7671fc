"""Rules of LCCC [@wang2020large, section 3] that need the whole corpus: what is said too often says nothing.

Imports: `bare` (same paper). The rule of the frequent trigrams is DialoGPT's as well [@zhang2020dialogpt, section 2].
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from papercode.decoders.lccc_rules import bare


def trigrams(turn: str) -> list[str]:
    """Runs of three letters, punctuation left out; characters, since Chinese has no spaces."""
    text = bare(turn)
    return [text[i : i + 3] for i in range(len(text) - 2)]


class Statistics:
    """How often trigrams and replies occur in a corpus.

    It holds every different trigram once, in about 120 bytes, and every different reply, in about 330 or, where it
    follows several posts, more.

    Args:
        frequent: A trigram that occurs this often, or more, is frequent.
        share: A reply is bland if this share of its trigrams is frequent.
        posts: A reply to more than so many different posts is an advertisement, or says nothing.
        least: Replies of fewer letters are never counted as such: everybody says them.
    """

    def __init__(self, frequent: int = 1000, share: float = 0.9, posts: int = 20, least: int = 8):
        self.frequent, self.share, self.posts, self.least = frequent, share, posts, least
        self._trigrams: Counter[str] = Counter()
        self._posts: dict[str, set[int]] = {}

    def add(self, dialogue: Sequence[str]) -> None:
        """Counts one dialogue more; of its turns, all but the first are replies."""
        for post, turn in pairwise(dialogue):
            self._trigrams.update(trigrams(turn))
            text = bare(turn)
            if len(text) >= self.least:
                seen = self._posts.setdefault(text, set())
                if len(seen) <= self.posts:
                    seen.add(hash(bare(post)))

    @classmethod
    def of(cls, dialogues: Iterable[Sequence[str]], **limits) -> "Statistics":
        """Those of a whole corpus."""
        statistics = cls(**limits)
        for dialogue in dialogues:
            statistics.add(dialogue)
        return statistics

    def bland(self, turn: str) -> bool:
        """A rule: nearly all trigrams are frequent."""
        found = trigrams(turn)
        often = sum(self._trigrams[gram] >= self.frequent for gram in found)
        return bool(found) and often >= self.share * len(found)

    def everywhere(self, turn: str) -> bool:
        """A rule: the same reply to many different posts."""
        return len(self._posts.get(bare(turn), ())) > self.posts
