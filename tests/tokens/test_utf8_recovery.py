"""The dynamic programme against all ways to leave bytes out, and against a decoder that skips what is no character."""

import random
from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from papercode.tokens.utf8_recovery import utf8_recover

# bytes that are likely to be nearly a character: starts and continuations of all lengths, forbidden ones
KINDS = [
    0x41,
    0x7F,
    0x80,
    0x8F,
    0x9F,
    0xA0,
    0xBF,
    0xC1,
    0xC2,
    0xDF,
    0xE0,
    0xE4,
    0xED,
    0xEF,
    0xF0,
    0xF3,
    0xF4,
    0xF5,
    0xFF,
]
tricky = st.lists(st.sampled_from(KINDS), max_size=40).map(bytes)


def is_text(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def most_characters(data):
    """All texts with the most characters that are made of pieces of `data` in their order."""
    best = {""}
    most = 0
    for pieces in cuttings(data):
        texts = [text for piece in pieces if (text := is_text(piece)) and len(text) == 1]
        if len(texts) >= most:
            best = best if len(texts) == most else set()
            most = len(texts)
            best.add("".join(texts))
    return best


def cuttings(data):
    for n in range(len(data)):
        for cuts in combinations(range(1, len(data)), n):
            borders = [0, *cuts, len(data)]
            yield [data[a:b] for a, b in pairwise(borders)]


def test_by_hand():
    assert utf8_recover("a中é🙂".encode()) == "a中é🙂"
    # the second byte of 中 is lost, then 中 is begun twice, then ends
    assert utf8_recover(b"a\xe4\xad" + b"\xe4\xe4\xb8\xad" + b"\xf0\x9f\x99") == "a中"
    assert utf8_recover(b"") == utf8_recover(b"\x80\xbf\xff") == ""


def test_no_way_to_cut_gives_more_and_only_one_gives_as_many():
    generator = random.Random(0)
    for _ in range(60):
        data = bytes(generator.choices(KINDS, k=generator.randint(1, 9)))
        assert most_characters(data) == {utf8_recover(data)}, data
    for data in ("é中".encode()[:-1] + b"\x80", "🙂é".encode()[1:], "中🙂".encode()[:-1] + "é".encode()):
        assert most_characters(data) == {utf8_recover(data)}, data


@settings(max_examples=500, deadline=None)
@given(st.one_of(tricky, st.binary(max_size=60)))
def test_it_is_what_decoding_without_the_errors_gives(data):
    assert utf8_recover(data) == data.decode("utf-8", "ignore")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_valid_text_is_left_as_it_is(text):
    assert utf8_recover(text.encode()) == text


def test_the_bytes_that_occur():
    """The paper counts 248; it is 243."""
    seen = set()
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            seen.update(chr(code).encode())
    assert len(seen) == 243
    assert set(range(256)) - seen == {0xC0, 0xC1, *range(0xF5, 0x100)}
