import math
from collections import Counter

import pytest
import torch

from helpers import assert_differs, assert_same
from papercode.evaluation.dialogue import (
    brevity,
    counted,
    distinct,
    embedding_average,
    entropy,
    greedy_matching,
    ngrams,
    nist,
)

F64 = torch.float64


def words(*texts):
    return [text.split() for text in texts]


def test_ngrams_of_words_and_of_characters():
    assert list(ngrams(["a", "b", "c"], 2)) == [("a", "b"), ("b", "c")]
    assert list(ngrams("你好吗", 3)) == [("你", "好", "吗")]
    assert list(ngrams("你好", 3)) == []
    assert counted(["aa", "aab"], 2) == {("a", "a"): 2, ("a", "b"): 1}
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        ngrams("ab", 0)


def test_distinct_by_hand():
    texts = words("i do not know", "i do not know", "go home")
    assert distinct(texts, 1) == 6 / 10
    assert distinct(texts, 2) == 4 / 7  # no bigram from one reply to the next
    assert distinct([], 1) == distinct(words("one"), 2) == 0


def test_distinct_is_of_the_corpus_and_not_a_mean_of_texts():
    texts = words("a b", "a b")
    assert distinct(texts, 1) == 0.5
    assert distinct(texts[:1], 1) == 1


def test_entropy_by_hand():
    assert entropy(words("a b", "c d"), 1) == pytest.approx(math.log(4))
    assert entropy(words("a a", "a b"), 1) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert entropy(words("a a a"), 2) == 0
    assert entropy([], 4) == 0
    # as varied by Dist-1, but used less evenly
    even, uneven = words("a a a b b b"), words("a a a a a b")
    assert distinct(even, 1) == distinct(uneven, 1)
    assert entropy(even, 1) > entropy(uneven, 1)


def test_nist_by_hand():
    # 8 words in all; a 4 times, b twice, c and d once; bigrams: ab twice, bc, bd, aa, da once... counted below
    references = [words("a b c"), words("a b d a a")]
    assert counted([t for r in references for t in r], 1) == {("a",): 4, ("b",): 2, ("c",): 1, ("d",): 1}
    # hypotheses "a b" and "d d d d d d": a is worth log2(8/4) = 1, b log2(8/2) = 2, d log2 8 = 3, once
    hypotheses = words("a b", "d d d d d d")
    assert nist(hypotheses, references, 1) == pytest.approx((1 + 2 + 3) / 8)
    # ab is worth log2(4/2) = 1, among 1 + 5 bigrams
    assert nist(hypotheses, references, 2) == pytest.approx(6 / 8 + 1 / 6)


def test_nist_goes_up_to_five_words_and_wants_as_many_as_the_references_have():
    """As in the metric's own program."""
    text = words("a b c d e a b c d f")
    assert nist(text, [text]) == nist(text, [text], 5) > nist(text, [text], 4)
    assert brevity(7, 6) == brevity(6.5, 6) == brevity(6, 6) == 1
    assert brevity(5, 6) == pytest.approx(0.5 ** ((math.log(5 / 6) / math.log(1.5)) ** 2))


def test_nist_counts_an_ngram_as_often_as_the_reference_that_has_it_most():
    one = [words("a a b", "a b b")]
    assert nist(words("a a a"), one, 1) == pytest.approx(2 * math.log2(6 / 3) / 3)  # not 3 times


def test_nist_takes_counts_from_all_references():
    hypotheses = words("a b")
    alone = nist(hypotheses, [words("a b")], 1)
    among = nist([*hypotheses, []], [words("a b"), words("a a a a a a")], 1)
    assert alone == pytest.approx(1)  # two words, each half of all
    assert among == pytest.approx((math.log2(8 / 7) + 3) / 2 * brevity(2, 8))


def slow_nist(hypotheses, references, n):
    """The equations, with loops and string positions."""
    flat = [tuple(text) for texts in references for text in texts]

    def count(gram):
        return sum(text[i : i + len(gram)] == gram for text in flat for i in range(len(text) - len(gram) + 1))

    total = 0
    for length in range(1, n + 1):
        numerator = denominator = 0
        for text, texts in zip(hypotheses, references):
            grams = [tuple(text[i : i + length]) for i in range(len(text) - length + 1)]
            denominator += len(grams)
            for gram in set(grams):
                best = max(Counter(tuple(r[i : i + length]) for i in range(len(r) - length + 1))[gram] for r in texts)
                matched = min(grams.count(gram), best)
                if matched:
                    upper = sum(map(len, flat)) if length == 1 else count(gram[:-1])
                    numerator += matched * math.log2(upper / count(gram))
        total += numerator / denominator if denominator else 0
    wanted = sum(sum(len(r) for r in texts) / len(texts) for texts in references)
    ratio = min(1, sum(map(len, hypotheses)) / wanted)
    beta = math.log(0.5) / math.log(1.5) ** 2
    return total * math.exp(beta * math.log(ratio) ** 2)


@pytest.mark.parametrize("longer", [0, 3], ids=["short", "long"])
def test_nist_equals_the_equations_with_loops(parity, longer):
    draw = torch.Generator().manual_seed(longer)

    def text(n):
        return [f"w{i}" for i in torch.randint(5, (n,), generator=draw).tolist()]

    hypotheses = [text(3 + longer + i % 4) for i in range(11)]
    references = [[text(4 + (i + j) % 5) for j in range(1 + i % 3)] for i in range(11)]
    ours = [nist(hypotheses, references, n) for n in range(1, 6)]
    theirs = [slow_nist(hypotheses, references, n) for n in range(1, 6)]
    assert ours == sorted(ours)
    parity("NIST", "the equations, with loops", "n = 1 to 5, up to 3 references", torch.tensor(ours, dtype=F64),
           torch.tensor(theirs, dtype=F64))  # fmt: skip
    shifted = [nist(hypotheses, references[1:] + references[:1], n) for n in range(1, 6)]
    assert_differs(torch.tensor(shifted), torch.tensor(ours))


def test_short_replies_are_worth_less():
    assert brevity(9, 9) == brevity(12, 9) == 1
    assert brevity(6, 9) == pytest.approx(0.5)
    assert brevity(4, 9) == pytest.approx(0.5**4)
    assert brevity(0, 9) == 0
    # the mean length of the references counts: 4 and 8 words ask for 6
    references = [words("a b c d", "a b c d e f g h")]
    assert nist(words("a a a a"), references, 1) == pytest.approx(math.log2(12 / 2) / 4 * 0.5)


def test_nist_refuses_what_does_not_fit():
    for hypotheses, references in [([], []), (words("a"), []), (words("a"), [[]])]:
        with pytest.raises(ValueError, match="one list of references each"):
            nist(hypotheses, references)
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        nist(words("a"), [words("a")], 0)


def test_vectors_by_hand():
    x, y = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    assert_same(embedding_average(torch.stack([x, y]), torch.stack([x])), torch.tensor(0.5**0.5, dtype=F64))
    # x finds itself, y finds nothing; the other way x finds itself: (1/2 + 1) / 2
    assert_same(greedy_matching(torch.stack([x, 7 * y]), torch.stack([3 * x])), torch.tensor(0.75, dtype=F64))


def test_vectors_equal_the_equations_with_loops(parity):
    a, b = torch.randn(5, 7, dtype=F64), torch.randn(3, 7, dtype=F64)

    def cosine(x, y):
        return x @ y / x.norm() / y.norm()

    table = [[cosine(x, y) for y in b] for x in a]
    there = sum(max(row) for row in table) / 5
    back = sum(max(row[j] for row in table) for j in range(3)) / 3
    parity("greedy matching", "the equations, with loops", "5 and 3 words", greedy_matching(a, b), (there + back) / 2)
    parity("embedding average", "the equations, with loops", "5 and 3 words", embedding_average(a, b),
           cosine(sum(a) / 5, sum(b) / 3))  # fmt: skip
    assert_same(greedy_matching(a, b), greedy_matching(b, a))
    assert_differs(greedy_matching(a, b), there, 1e-4)
    # word order is nothing to either; scale matters to the average only
    shuffled, louder = a[torch.randperm(5)], a * torch.tensor([9.0, 1, 1, 1, 1])[:, None]
    assert_same(greedy_matching(shuffled, b), greedy_matching(a, b))
    assert_same(greedy_matching(louder, b), greedy_matching(a, b))
    assert_same(embedding_average(shuffled, b), embedding_average(a, b))
    assert_differs(embedding_average(louder, b), embedding_average(a, b))
