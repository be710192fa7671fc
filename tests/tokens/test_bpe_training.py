"""Learning merges: the toy corpus by hand, the paper's algorithm, `tokenizers` on random words and real text."""

import itertools
import sys
from collections import Counter

import pytest
from bpe_texts import learned_by_tokenizers, random_words, real_text
from tokenizers import pre_tokenizers

from papercode.tokens.bpe_text import count_words
from papercode.tokens.bpe_training import algorithm_1, learn_merges
from papercode.tokens.byte_alphabet import gpt2_words

TOY = {(*word, "</w>"): count for word, count in {"low": 5, "lower": 2, "newest": 6, "widest": 3}.items()}


def counts_of(words, merges):
    """How often each pair occurs when its turn comes, and the most that any pair does; counted from scratch."""
    spelled = {tuple(word): count for word, count in words.items()}
    for merge in merges:
        pairs = Counter()
        for word, count in spelled.items():
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        yield pairs[merge], max(pairs.values())
        after = Counter()
        for word, count in spelled.items():
            joined = " ".join(word).split(" ")
            i = 0
            while i < len(joined) - 1:
                if (joined[i], joined[i + 1]) == merge:
                    joined[i : i + 2] = ["".join(merge)]
                i += 1
            after[tuple(joined)] += count
        spelled = after


def test_the_papers_listing():
    expected = [("e", "s"), ("es", "t"), ("est", "</w>"), ("l", "o"), ("lo", "w")]
    assert algorithm_1(TOY, 5) == expected
    after = [("n", "e"), ("ne", "w"), ("new", "est</w>"), ("low", "</w>"), ("w", "i")]
    assert algorithm_1(TOY, 10) == expected + after


def test_figure_1_of_the_paper():
    """Each of its merges is one of the most frequent pairs, but not the one that the listing takes first."""
    words = {(*word, "·"): 1 for word in ("low", "lowest", "newer", "wider")}
    figure = [("r", "·"), ("l", "o"), ("lo", "w"), ("e", "r·")]
    assert list(counts_of(words, figure)) == [(2, 2)] * 4
    assert algorithm_1(words, 1) == [("l", "o")]


def test_the_fast_way_takes_other_pairs_only_where_they_are_as_frequent():
    merges = learn_merges(TOY, 10)
    assert merges[:5] == [("e", "s"), ("t", "</w>"), ("es", "t</w>"), ("l", "o"), ("lo", "w")]
    assert list(counts_of(TOY, merges)) == list(counts_of(TOY, algorithm_1(TOY, 10)))


@pytest.mark.parametrize("seed", range(5))
def test_every_merge_is_the_most_frequent_pair(seed):
    words = random_words(60, seed)
    for merges in (learn_merges(words, 40), algorithm_1(words, 40)):
        assert len(merges) == 40
        assert all(count == most for count, most in counts_of(words, merges))


def test_without_ties_both_are_the_same():
    words = {"abc": 100, "abd": 31, "ccd": 17, "aac": 7, "dda": 3}
    assert learn_merges(words, 5) == algorithm_1(words, 5)
    assert learn_merges(words, 5) != algorithm_1({**words, "ddd": 200}, 5)


@pytest.mark.parametrize("seed", range(8))
def test_tokenizers_learns_the_same_from_random_words(seed):
    words = random_words(200, seed)
    _vocabulary, merges = learned_by_tokenizers(words, 104)
    assert learn_merges(words, len(merges)) == merges
    assert len(merges) >= 100
    assert learn_merges(words, len(merges), alphabet="A") == merges  # one more symbol, all numbers shifted


@pytest.mark.parametrize("size", [300, 1000, 8000, 30000])
def test_tokenizers_learns_the_same_from_real_text(size):
    words = {word: n for word, n in count_words(real_text(), gpt2_words).items() if word.isascii() and "\n" not in word}
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _, merges = learned_by_tokenizers(words, size, initial_alphabet=alphabet)
    assert learn_merges(words, len(merges), alphabet=alphabet) == merges
    assert len(merges) >= min(size, 9000) - 257


def test_tokenizers_learns_the_same_with_a_mark_on_the_last_character():
    words = random_words(200)
    spelled = {(*word[:-1], word[-1] + "</w>"): count for word, count in words.items()}
    symbols = sorted(set().union(*spelled))  # which it would number as they come; so they are given as special tokens
    _, merges = learned_by_tokenizers(words, 120, special_tokens=symbols, end_of_word_suffix="</w>")
    assert learn_merges(spelled, len(merges)) == merges


def test_the_order_of_the_words_is_nothing_to_it():
    words = random_words(100)
    assert learn_merges(dict(reversed(words.items())), 50) == learn_merges(words, 50)
    assert algorithm_1(dict(reversed(words.items())), 50) != algorithm_1(words, 50)


def test_it_ends():
    assert learn_merges({"ab": 2, "c": 1}, 10) == algorithm_1({"ab": 2, "c": 1}, 10) == [("a", "b")]
    assert learn_merges({"ab": 2, "cd": 1}, 10, min_count=2) == [("a", "b")]
    assert learn_merges({"ab": 2, "cd": 1}, 1) == [("a", "b")]
    assert learn_merges({"ab": 2}, 0) == learn_merges({}, 3) == learn_merges({"ab": 0}, 3) == []


def test_a_run_of_the_same_letter():
    """aaaaa has four pairs, which overlap; joined from the left it is aa aa a, two pairs once each."""
    assert learn_merges({"aaaaa": 1}, 3) == [("a", "a"), ("aa", "a"), ("aa", "aaa")]
    assert algorithm_1({"aaaaa": 1}, 3) == [("a", "a"), ("aa", "aa"), ("aaaa", "a")]


def test_every_merge_makes_a_new_piece():
    """Where a string stands between the same borders it is spelled in the same way, so it is made in one way."""
    for seed in range(20):
        words = random_words(300, seed, "ab")
        merges = learn_merges(words, 200)
        assert len({left + right for left, right in merges}) == len(merges) > 100


def test_unless_a_symbol_is_spelled_like_it():
    """Then a merge may come back; it is learned already, and is not listed a second time."""
    words = {("ab", "c"): 5, ("a", "b", "c"): 3}
    assert learn_merges(words, 3) == [("ab", "c"), ("a", "b")]
    assert algorithm_1(words, 3) == [("ab", "c"), ("a", "b"), ("ab", "c")]
    # and it is as frequent as what has come back, not as it was: c p is more frequent than what is left of ab c
    words = {("ab", "c"): 5, ("a", "b", "c", "p"): 2, ("a", "b"): 2, ("c", "p"): 1}
    assert learn_merges(words, 4) == algorithm_1(words, 4) == [("ab", "c"), ("a", "b"), ("c", "p"), ("ab", "cp")]


def test_errors():
    with pytest.raises(ValueError, match="n=-1 must be at least 0"):
        learn_merges({"ab": 1}, -1)
    with pytest.raises(ValueError, match="min_count=0 at least 1"):
        learn_merges({"ab": 1}, 1, min_count=0)
    with pytest.raises(ValueError, match="words: -2 is no number of times"):
        learn_merges({"ab": 1, "c": -2}, 1)


def test_it_works_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert learn_merges({"ab": 1}, 1) == [("a", "b")]
