"""Hidden words and pairs of texts: counts, statistics, and what must never happen."""

from collections import Counter

import pytest
import torch

from papercode.encoders.bert_data import Pair, build_nsp_pairs, mask_tokens, warm_up
from papercode.encoders.bert_pretraining import IGNORED

PAD, CLS, SEP, MASK, V = 0, 1, 2, 3, 101
SPECIAL = (PAD, CLS, SEP)


def texts(b=400, n=40):
    x = torch.randint(4, V, (b, n))
    x[:, 0], x[:, n // 2] = CLS, SEP
    x[1::2, n - 7 :] = PAD
    return x


def masked(x, **changes):
    return mask_tokens(x, **{"mask": MASK, "n_tokens": V, "special": SPECIAL} | changes)


# hidden words


def test_a_text_of_twenty_words_loses_three():
    x = torch.cat([torch.tensor([[CLS]]), torch.arange(10, 30)[None], torch.tensor([[SEP]])], 1)
    hidden, targets = masked(x)
    assert (targets != IGNORED).sum() == 3
    assert torch.equal(targets[targets != IGNORED], x[targets != IGNORED])
    assert torch.equal(hidden[targets == IGNORED], x[targets == IGNORED])


@pytest.mark.parametrize(("words", "expected"), [(1, 1), (3, 1), (6, 1), (9, 1), (11, 2), (100, 15)])
def test_how_many_are_chosen(words, expected):
    x = torch.cat([torch.full((5, 2), CLS), torch.randint(4, V, (5, words)), torch.full((5, 4), PAD)], 1)
    assert ((masked(x)[1] != IGNORED).sum(1) == expected).all()


def test_statistics():
    """Of the chosen ones 80 % are [MASK], 10 % stay, 10 % are drawn from all words, the right one included."""
    x = torch.randint(4, V, (2000, 40))
    hidden, targets = masked(x)
    chosen = targets != IGNORED
    number = chosen.sum().item()
    assert number == 12_000  # 15 % of 80,000
    shares = {
        "mask": (hidden == MASK) & chosen,
        "same": (hidden == x) & chosen,
        "other": (hidden != MASK) & (hidden != x) & chosen,
    }
    found = {name: where.sum().item() / number for name, where in shares.items()}
    wanted = {"mask": 0.8 + 0.1 / V, "same": 0.1 + 0.1 / V, "other": 0.1 * (V - 2) / V}
    assert all(abs(found[name] - wanted[name]) < 0.015 for name in wanted)  # three deviations are 0.011
    drawn = Counter(hidden[shares["other"]].tolist())
    assert min(drawn) < 4  # special tokens are drawn, too
    assert max(drawn.values()) < 30  # of about 1,200 over 100 words
    assert len(drawn) > 95


def test_special_tokens_and_padding_are_never_chosen():
    x = texts()
    _, targets = masked(x)
    assert not torch.isin(targets, torch.tensor(SPECIAL)).any()
    assert torch.isin(masked(x, special=())[1], torch.tensor(SPECIAL)).any()


def test_every_position_is_chosen_as_often_as_another():
    x = torch.randint(4, V, (4000, 20))
    counts = (masked(x)[1] != IGNORED).sum(0)
    assert ((counts - 600).abs() < 100).all()  # 4,000 times 3 of 20; the deviation is 23


def test_a_text_without_words_is_left_alone():
    x = torch.tensor([[CLS, SEP, PAD]])
    hidden, targets = masked(x)
    assert torch.equal(hidden, x)
    assert (targets == IGNORED).all()


def test_a_rate_of_one_chooses_all_and_the_input_is_not_changed():
    x = texts()
    before = x.clone()
    _, targets = masked(x, rate=1.0)
    may = ~torch.isin(x, torch.tensor(SPECIAL))
    assert torch.equal(targets, torch.where(may, x, IGNORED))
    assert torch.equal(x, before)


def test_a_generator_makes_it_repeatable():
    x = texts()
    first, second = (masked(x, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    other = masked(x, generator=torch.Generator().manual_seed(8))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, r"rate=0\.0 must be more than 0 and at most 1"),
        ({"rate": 1.5}, r"rate=1\.5 must be more than 0 and at most 1"),
        ({"mask": V}, f"mask={V} must be an id, at least 0 and less than n_tokens={V}"),
        ({"mask": -1}, "mask=-1 must be an id"),
    ],
)
def test_arguments_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        masked(texts(), **changes)


# pairs: the token 10000·d + 10·s + t is the t-th of sentence s of document d


def documents(number=6, sentences=30, longest=9):
    lengths = torch.randint(1, longest + 1, (number, sentences)).tolist()
    return [[[10_000 * d + 10 * s + t for t in range(n)] for s, n in enumerate(row)] for d, row in enumerate(lengths)]


def flat(document):
    return [token for sentence in document for token in sentence]


def inside(part, whole):
    return any(part == whole[i : i + len(part)] for i in range(len(whole) - len(part) + 1))


def test_a_stranger_may_begin_at_any_sentence():
    texts = [[[100 * d + s] for s in range(6)] for d in range(3)]  # sentences of one token
    pairs = [pair for seed in range(20) for pair in build_nsp_pairs(texts, 5, seed=seed) if not pair.follows]
    assert {pair.second[0] % 100 for pair in pairs} == set(range(6))


def test_pairs_are_what_they_say():
    texts = documents()
    pairs = list(build_nsp_pairs(texts, 43, seed=1))
    assert len(pairs) > 20
    assert all(isinstance(pair, Pair) for pair in pairs)
    for first, second, follows in pairs:
        one, other = first[0] // 10_000, second[0] // 10_000
        assert inside(first, flat(texts[one]))
        assert inside(second, flat(texts[other]))
        assert follows == (one == other)
        assert 5 <= len(first) + len(second) + 3 <= 43 or len(first) + len(second) == 2


def test_the_second_text_begins_where_the_first_ends():
    """Where nothing had to be cut off, the two are neighbours."""
    texts = documents(longest=2)
    pairs = [pair for pair in build_nsp_pairs(texts, 200, short=0.0) if pair.follows]
    assert pairs
    for first, second, _ in pairs:
        assert inside(first + second, flat(texts[first[0] // 10_000]))


def test_nothing_is_lost_when_nothing_is_cut():
    """What a random second text displaced begins the next pair."""
    texts = [[[100 * d + s] for s in range(12)] for d in range(4)]  # sentences of a token: aims are met exactly
    for d, document in enumerate(texts):
        seen = []
        for first, second, follows in build_nsp_pairs(texts, 10, seed=3):
            if first[0] // 100 == d:
                seen += first + second if follows else first
        assert seen == flat(document)


def test_about_half_follow_and_the_others_come_from_all_other_documents():
    texts = documents(12, 200)
    pairs = [pair for seed in range(8) for pair in build_nsp_pairs(texts, 60, seed=seed)]
    share = sum(pair.follows for pair in pairs) / len(pairs)
    assert 0.45 < share < 0.53  # of about 2,300 pairs: the deviation is 0.01
    visits = Counter((a[0] // 10_000, b[0] // 10_000) for a, b, follows in pairs if not follows)
    assert all(visits[d, e] > 0 for d in range(12) for e in range(12) if d != e)
    assert not any(visits[d, d] for d in range(12))


def test_a_last_sentence_alone_gets_a_stranger():
    pairs = list(build_nsp_pairs([[[1, 2]], [[3, 4]], [[5]]], 20))
    assert [pair.follows for pair in pairs] == [False] * 3
    assert [pair.first for pair in pairs] == [[1, 2], [3, 4], [5]]


def test_what_is_too_long_is_cut_the_longer_text_first_at_both_ends():
    long = [[list(range(d, d + 50)), list(range(d + 50, d + 100))] for d in (0, 1000)]
    starts, ends = set(), set()
    for seed in range(20):
        for first, second, _ in build_nsp_pairs(long, 23, seed=seed, short=0.0):
            assert len(first) == len(second) == 10
            assert first == list(range(first[0], first[0] + 10))
            starts.add(first[0] % 50 > 0)
            ends.add(first[-1] % 50 < 49)
    assert starts == ends == {True}
    uneven = [[[7], list(range(100, 150))], [[8], list(range(200, 250))]]
    for first, second, follows in build_nsp_pairs(uneven, 13, short=0.0):
        if follows:
            assert (len(first), len(second)) == (1, 9)  # the short one is left whole


def test_some_pairs_are_short():
    texts = [[[s] for s in range(d, d + 3000)] for d in (0, 5000)]
    lengths = lambda short: [len(a) + len(b) for a, b, _ in build_nsp_pairs(texts, 53, short=short)]  # noqa: E731
    full = lengths(0.0)
    assert sum(n < 50 for n in full) <= 4  # at the ends of the documents
    some = sum(n < 50 for n in lengths(0.1)) / len(lengths(0.1))
    assert 0.03 < some < 0.2
    assert sum(n < 50 for n in lengths(1.0)) / len(lengths(1.0)) > 0.9


def test_the_same_seed_gives_the_same_pairs():
    texts = documents()
    assert list(build_nsp_pairs(texts, 30, seed=5)) == list(build_nsp_pairs(texts, 30, seed=5))
    assert list(build_nsp_pairs(texts, 30, seed=5)) != list(build_nsp_pairs(texts, 30, seed=6))


@pytest.mark.parametrize(
    ("texts", "length", "message"),
    [
        ([[[1]]], 20, "documents has length 1, but a text from another document takes at least 2"),
        ([[[1]], []], 20, "documents holds an empty document or an empty sentence"),
        ([[[1]], [[]]], 20, "documents holds an empty document or an empty sentence"),
        ([[[1]], [[2]]], 4, r"max_length=4 must be at least 5: \[CLS\]"),
    ],
)
def test_documents_that_cannot_be_paired(texts, length, message):
    with pytest.raises(ValueError, match=message):
        list(build_nsp_pairs(texts, length))


# the learning rate


def test_the_rate_rises_and_falls_in_straight_lines():
    rate = warm_up(1e-4, 10_000, 1_000_000)
    assert rate(1) == pytest.approx(1e-8)
    assert rate(5_000) == pytest.approx(5e-5)
    assert rate(10_000) == pytest.approx(1e-4)
    assert rate(505_000) == pytest.approx(5e-5)
    assert rate(1_000_000) == rate(1_000_001) == 0
    assert max(rate(step) for step in range(9_990, 10_010)) == pytest.approx(1e-4)


@pytest.mark.parametrize(("steps", "total"), [(0, 5), (5, 5), (7, 5)])
def test_a_schedule_that_does_not_fit(steps, total):
    with pytest.raises(ValueError, match=f"need 0 < steps={steps} < total={total}"):
        warm_up(1.0, steps, total)
