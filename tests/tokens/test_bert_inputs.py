"""Frames, truncation and padding against the tokenizers library."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wordpiece import library
from tokenizers.processors import BertProcessing
from transformers import BertTokenizer

from papercode.tokens.bert_inputs import Batch, batch, frame, truncated
from papercode.tokens.bert_text import BertText
from papercode.tokens.wordpiece import WordPiece
from papercode.tokens.wordpiece_files import SPECIAL

NAMES = ("input_ids", "token_type_ids", "attention_mask")
LETTERS = [*SPECIAL, *"abcdefg"]
TOKENIZER = WordPiece(LETTERS)


def peer():
    tokenizer = library(LETTERS, BertText())
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


letters = st.lists(st.sampled_from("abcdefg"), max_size=9).map(" ".join)


@given(text=letters, pair=st.none() | letters, max_length=st.none() | st.integers(3, 21))
@settings(max_examples=300, deadline=None)
def test_frames_are_those_of_the_library(text, pair, max_length):
    theirs = peer()
    if max_length is not None:
        theirs.enable_truncation(max_length, strategy="longest_first")
    found = theirs.encode(text, pair)
    assert frame(TOKENIZER, text, pair, max_length=max_length) == (found.ids, found.type_ids)


@given(data=st.data(), max_length=st.none() | st.integers(3, 21))
@settings(max_examples=100, deadline=None)
def test_batches_are_those_of_the_library(data, max_length):
    texts = data.draw(st.lists(letters, min_size=1, max_size=4))
    pairs = data.draw(st.none() | st.lists(letters, min_size=len(texts), max_size=len(texts)))
    theirs = peer()
    theirs.enable_padding()
    if max_length is not None:
        theirs.enable_truncation(max_length)
    found = theirs.encode_batch(texts if pairs is None else list(zip(texts, pairs)))
    expected = [e.ids for e in found], [e.type_ids for e in found], [[m == 1 for m in e.attention_mask] for e in found]
    assert batch(TOKENIZER, texts, pairs, max_length=max_length) == expected


def test_tensors_are_those_of_transformers(parity):
    theirs = BertTokenizer({token: i for i, token in enumerate(LETTERS)})
    texts, pairs = ["a b c d e", "a", "g f"], ["c", "c d e f g a b", ""]
    found = theirs(texts, pairs, padding=True, truncation="longest_first", max_length=9, return_tensors="pt")
    ids, segments, mask = batch(TOKENIZER, texts, pairs, max_length=9).tensors()
    expected = [found["input_ids"], found["token_type_ids"], found["attention_mask"]]
    parity(
        "WordPiece",
        "transformers.BertTokenizer",
        "pairs, longest first, padding",
        [ids, segments, mask.long()],
        expected,
    )
    assert ids.shape == (3, 9)
    assert (ids.dtype, segments.dtype, mask.dtype) == (torch.long, torch.long, torch.bool)
    other = batch(TOKENIZER, pairs, texts, max_length=9).tensors()
    assert not torch.equal(other[0], expected[0])


def test_a_frame_by_hand():
    assert frame(TOKENIZER, "a b") == ([2, 5, 6, 3], [0, 0, 0, 0])
    assert frame(TOKENIZER, "a b", "c") == ([2, 5, 6, 3, 7, 3], [0, 0, 0, 0, 1, 1])
    assert frame(TOKENIZER, "a b", "") == ([2, 5, 6, 3, 3], [0, 0, 0, 0, 1])
    assert frame(TOKENIZER, "a b c", max_length=4).ids == [2, 5, 6, 3]


def test_a_batch_by_hand():
    assert batch(TOKENIZER, ["a", "b c"]) == Batch(
        [[2, 5, 3, 0], [2, 6, 7, 3]], [[0] * 4, [0] * 4], [[True, True, True, False], [True] * 4]
    )
    assert batch(TOKENIZER, ["a", "b"], ["", "c"]).segments == [[0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [(5, 5, 10, (5, 5)), (5, 5, 9, (4, 5)), (9, 3, 7, (4, 3)), (3, 9, 7, (3, 4)), (9, 1, 4, (3, 1)), (2, 9, 0, (0, 0))],
)
def test_what_is_cut_off(first, second, room, kept):
    one, other = list(range(first)), list(range(50, 50 + second))
    assert truncated(one, other, room) == (one[: kept[0]], other[: kept[1]])


@given(first=st.integers(0, 12), second=st.integers(0, 12), room=st.integers(0, 24))
def test_berts_own_script_differs_by_the_odd_token_only(first, second, room):
    kept = tuple(map(len, truncated([0] * first, [0] * second, room)))
    one, other = first, second
    while one + other > room:
        one, other = (one - 1, other) if one > other else (one, other - 1)
    assert sum(kept) == min(first + second, room)
    assert kept == (one, other) or (kept == (other, one) and abs(one - other) == 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: frame(TOKENIZER, "a", max_length=1),
            ValueError,
            "max_length=1 must be at least 2, for",
        ),
        (
            lambda: frame(TOKENIZER, "a", "b", max_length=2),
            ValueError,
            "max_length=2 must be at least 3, for",
        ),
        (lambda: truncated([1], [2], -1), ValueError, "room=-1 must be at least 0"),
        (lambda: batch(TOKENIZER, []), ValueError, "texts has 0"),
        (lambda: batch(TOKENIZER, ["a"], ["a", "b"]), ValueError, "texts has 1 and pairs 2 entries"),
        (lambda: batch(TOKENIZER, ["a"], []), ValueError, "texts has 1 and pairs 0 entries"),
        (lambda: batch(TOKENIZER, "ab"), TypeError, "texts must be a sequence of strings, got the string 'ab'"),
        (lambda: batch(TOKENIZER, ["a"], "b"), TypeError, "pairs must be a sequence of strings, got the string 'b'"),
        (
            lambda: frame(WordPiece(["[UNK]", "[CLS]"]), "a"),
            ValueError,
            "tokenizer has no [SEP] in its vocabulary",
        ),
        (lambda: batch(WordPiece(LETTERS[1:]), ["a"]), ValueError, "tokenizer has no [PAD] in its vocabulary of 11"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        call()
