"""Masks that stay and masks that change, and four ways to fill an input: exact counts, and what must never happen."""

from collections import Counter
from functools import partial
from itertools import islice, pairwise

import pytest
import torch

from papercode.encoders.bert_data import Pair, mask_tokens
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.roberta_data import (
    batches_of,
    doc_sentences,
    dynamic_masking,
    full_sentences,
    sentence_pairs,
    static_masking,
)

MASK, V, SEP = 3, 101, 0
hide = partial(mask_tokens, mask=MASK, n_tokens=V, special=())


def patterns(epochs, row=0):
    """Which words of a text each epoch asks for."""
    return [tuple((targets[row] != IGNORED).tolist()) for _, targets in epochs]


# masks


def test_static_masks_come_again_and_dynamic_ones_do_not():
    x = torch.randint(4, V, (3, 97))
    static, dynamic = (patterns(islice(masks(x, hide), 40)) for masks in (static_masking, dynamic_masking))
    assert Counter(Counter(static).values()) == {4: 10}  # ten masks, each four times: section 4.1
    assert len(set(dynamic)) == 40
    assert static[:10] == static[10:20] == static[30:]


def test_the_copies_are_masked_once_and_later_epochs_cost_nothing():
    calls = []

    def counting(x):
        calls.append(len(x))
        return hide(x)

    x = torch.randint(4, V, (5, 20))
    epochs = list(islice(static_masking(x, counting, copies=3), 7))
    assert calls == [5] * 3
    assert all(torch.equal(epochs[i][j], epochs[i + 3][j]) for i in range(4) for j in range(2))
    assert not torch.equal(epochs[0][0], epochs[1][0])
    calls.clear()
    list(islice(dynamic_masking(x, counting), 7))
    assert calls == [5] * 7


def test_how_many_words_are_ever_asked_for():
    """1 - 0.85^k after k masks: a fifth of the words is never a target of ten static masks."""
    x = torch.randint(4, V, (400, 100))
    for masks, wanted in ((static_masking, 1 - 0.85**10), (dynamic_masking, 1 - 0.85**40)):
        ever = torch.stack([targets != IGNORED for _, targets in islice(masks(x, hide), 40)]).any(0)
        assert abs(ever.double().mean().item() - wanted) < 0.01


def test_a_copy_there_must_be():
    with pytest.raises(ValueError, match="copies=0 must be at least 1"):
        static_masking(torch.zeros(1, 5, dtype=torch.long), hide, copies=0)


# inputs: the token 1000·d + 10·s + t is the t-th of sentence s of document d


def documents(number=5, sentences=17, longest=7):
    lengths = torch.randint(1, longest + 1, (number, sentences)).tolist()
    return [
        [[1000 * (d + 1) + 10 * s + t for t in range(n)] for s, n in enumerate(row)] for d, row in enumerate(lengths)
    ]


def flat(rows):
    return [token for row in rows for token in row]


def test_full_sentences_by_hand():
    texts = [[[1, 2, 3], [4, 5]], [[6], [7, 8]], [[9]]]
    assert list(full_sentences(texts, 8, SEP)) == [[1, 2, 3, 4, 5], [6, 7, 8, SEP, 9]]
    assert list(full_sentences(texts, 9, SEP)) == [[1, 2, 3, 4, 5, SEP, 6], [7, 8, SEP, 9]]
    assert list(full_sentences(texts, 100, SEP)) == [[1, 2, 3, 4, 5, SEP, 6, 7, 8, SEP, 9]]
    assert list(full_sentences([], 8, SEP)) == []


def test_doc_sentences_by_hand():
    texts = [[[1, 2, 3], [4, 5]], [[6], [7, 8]], [[9]]]
    assert list(doc_sentences(texts, 8)) == [[1, 2, 3, 4, 5], [6, 7, 8], [9]]
    assert list(doc_sentences(texts, 6)) == [[1, 2, 3], [4, 5], [6, 7, 8], [9]]


@pytest.mark.parametrize("length", [9, 13, 30, 1000])
def test_nothing_is_lost_no_sentence_is_torn_and_no_input_could_hold_more(length):
    texts = documents()
    sentences = [tuple(sentence) for document in texts for sentence in document]
    for rows in (list(full_sentences(texts, length, SEP)), list(doc_sentences(texts, length))):
        assert [token for token in flat(rows) if token != SEP] == flat(flat(texts))
        assert max(map(len, rows)) <= length - 2
        starts = {row[0] for row in rows}
        assert SEP not in starts
        assert SEP not in {row[-1] for row in rows}
        assert starts <= {sentence[0] for sentence in sentences}
    first = {sentence[0]: sentence for sentence in sentences}
    full = list(full_sentences(texts, length, SEP))
    for row, following in pairwise(full):
        border = following[0] // 1000 != row[-1] // 1000
        assert len(row) + border + len(first[following[0]]) > length - 2


def test_a_separator_stands_at_every_border_inside_an_input_and_nowhere_else():
    texts = documents()
    for row in full_sentences(texts, 300, SEP):
        places = [i for i, token in enumerate(row) if token == SEP]
        borders = [i for i in range(1, len(row) - 1) if row[i - 1] // 1000 != row[i + 1] // 1000 and row[i] == SEP]
        assert places == borders
        assert all(row[i] // 1000 == row[i + 1] // 1000 or SEP in row[i : i + 2] for i in range(len(row) - 1))
    assert sum(row.count(SEP) for row in full_sentences(texts, 10_000, SEP)) == 4
    assert not any(len({token // 1000 for token in row}) > 1 for row in doc_sentences(texts, 300))


def test_a_sentence_that_is_too_long_is_cut():
    long = list(range(10, 27))
    assert list(doc_sentences([[[1], long, [2]]], 7)) == [[1], long[:5], long[5:10], long[10:15], [25, 26, 2]]
    assert list(full_sentences([[[1]], [long]], 7, SEP)) == [[1], long[:5], long[5:10], long[10:15], long[15:]]


def test_pairs_of_single_sentences():
    texts = documents(6, 99)
    whole = {tuple(sentence): (d, s) for d, document in enumerate(texts) for s, sentence in enumerate(document)}
    pairs = list(sentence_pairs(texts, 17))
    assert all(isinstance(pair, Pair) for pair in pairs)
    strangers = Counter()
    for first, second, follows in pairs:
        (d, s), (e, t) = whole[tuple(first)], whole[tuple(second)]
        assert follows == (d == e)
        assert not follows or t == s + 1
        strangers[d, e] += not follows
    assert all(strangers[d, e] > 0 for d in range(6) for e in range(6) if d != e)
    share = sum(pair.follows for pair in pairs) / len(pairs)
    assert 0.42 < share < 0.58  # of about 400: three deviations are 0.075
    seen = [tuple(first) for first, _, _ in pairs] + [tuple(second) for _, second, follows in pairs if follows]
    assert sorted(seen) == sorted(whole)  # every sentence once, strangers apart


def test_pairs_are_repeatable_and_strangers_are_any_sentence():
    texts = [[[100 * d + s] for s in range(6)] for d in range(3)]
    assert list(sentence_pairs(texts, 5, seed=1)) == list(sentence_pairs(texts, 5, seed=1))
    assert list(sentence_pairs(texts, 5, seed=1)) != list(sentence_pairs(texts, 5, seed=2))
    pairs = [pair for seed in range(20) for pair in sentence_pairs(texts, 5, seed=seed)]
    assert {pair.second[0] % 100 for pair in pairs if not pair.follows} == set(range(6))
    assert all(not pair.follows for pair in pairs if pair.first[0] % 100 == 5)


def test_a_pair_that_is_too_long_loses_the_ends():
    long = [[list(range(d, d + 20)), list(range(d + 50, d + 53))] for d in (100, 200)]
    for first, second, _ in sentence_pairs(long, 13):
        assert first == list(range(first[0], first[0] + len(first)))
        assert len(first) + len(second) == 10 or max(len(first), len(second)) == 3
        assert {len(first), len(second)} <= {3, 5, 7}
        assert first[0] % 50 == 0
        assert second[0] % 50 == 0


def test_batches_of_about_as_many_tokens():
    rows = [[0] * n for n in (5, 5, 3, 3, 3, 1, 30, 2)]
    assert [[len(row) for row in batch] for batch in batches_of(rows, 10)] == [[5, 5], [3, 3, 3, 1], [30], [2]]
    assert list(batches_of([], 10)) == []
    texts = documents(9, 19)
    full, short = (list(batches_of(rows, 200)) for rows in (full_sentences(texts, 40, SEP), doc_sentences(texts, 40)))
    for batches in (full, short):
        assert all(160 < sum(map(len, batch)) <= 200 for batch in batches[:-1])
    assert max(map(len, short)) > max(map(len, full[:-1]))  # inputs are shorter, batches larger


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(full_sentences([[[1]], []], 9, SEP)), "documents holds an empty document or an empty sentence"),
        (lambda: list(doc_sentences([[[]]], 9)), "documents holds an empty document or an empty sentence"),
        (lambda: list(full_sentences([[[1]]], 2, SEP)), "max_length=2 must be at least 3: the frame, and a token"),
        (lambda: list(doc_sentences([[[1]]], 2)), "max_length=2 must be at least 3"),
        (lambda: list(sentence_pairs([[[1]], [[2]]], 4)), "max_length=4 must be at least 5"),
        (lambda: list(sentence_pairs([[[1]], [[]]], 9)), "documents holds an empty"),
        (lambda: list(sentence_pairs([[[1]]], 9)), "documents has length 1, but a sentence from another takes at"),
        (lambda: list(batches_of([[1]], 0)), "n_tokens=0 must be at least 1"),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()
