"""GPT-2's alphabet and pattern against `tokenizers`, and exactly where their Unicode tables part."""

import re
import unicodedata
from functools import cache

import pytest
from bpe_texts import known, real_text, unicode_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from papercode.tokens.byte_alphabet import SPACES, byte_characters, gpt2_words

# all characters but those of the planes in which none is assigned, or all are private
ALL = [
    chr(c) for plane in (0, 1, 2, 3, 14, 15) for c in range(plane << 16, plane + 1 << 16) if not 0xD800 <= c < 0xE000
]
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)


def reference_words(text):
    return [text[first:last] for _, (first, last) in BYTE_LEVEL.pre_tokenize_str(text)]


@cache
def reference_class(pattern):
    """The characters that match in the reference's regular expressions."""
    remove = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set(ALL)
    for start in range(0, len(ALL), 4096):
        for piece, _ in remove.pre_tokenize_str("".join(ALL[start : start + 4096])):
            found.difference_update(piece)
    return found


def our_class(sign):
    """The characters that make one word with `sign` before them."""
    words = gpt2_words("".join(f"{sign}{character}\n" for character in ALL))
    return {word[1] for word in words if len(word) == 2 and word[0] == sign}


def test_the_alphabet():
    characters = byte_characters()
    assert len(set(characters)) == len(characters) == 256
    assert set(characters) == set(pre_tokenizers.ByteLevel.alphabet())
    for byte, character in ((0x20, "Ġ"), (0x0A, "Ċ"), (0x41, "A"), (0x00, "Ā"), (0x7F, "ġ"), (0xAD, "Ń"), (0xFF, "ÿ")):
        assert characters[byte] == character
    assert all(character.isprintable() and not character.isspace() for character in characters)
    written = "".join(piece for piece, _ in BYTE_LEVEL.pre_tokenize_str("中é \x00🙂"))
    assert written == "".join(characters[byte] for byte in "中é \x00🙂".encode())


def test_by_hand():
    text = "I'm  sure\n\n they've x_y 3½kg, don'T!  "
    words = [
        "I",
        "'m",
        " ",
        " sure",
        "\n\n",
        " they",
        "'ve",
        " x",
        "_",
        "y",
        " 3½",
        "kg",
        ",",
        " don",
        "'",
        "T",
        "!",
        "  ",
    ]
    assert gpt2_words(text) == words


def test_real_text():
    for text in real_text():
        assert gpt2_words(text) == reference_words(text)


@settings(max_examples=500, deadline=None)
@given(unicode_text)
def test_random_text(text):
    assert gpt2_words(text) == reference_words(text)
    assert "".join(gpt2_words(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("aé中 \n٣½1_-'\u0301\x85"), max_size=30))
def test_runs_that_begin_in_ascii_and_leave_it(text):
    assert gpt2_words(text) == reference_words(text)


@pytest.mark.parametrize(("sign", "name"), [("a", r"\p{L}"), ("1", r"\p{N}")])
def test_where_the_tables_of_unicode_part(sign, name):
    """Nowhere but in characters that this Python's tables, or the reference's, do not have yet."""
    ours, theirs = our_class(sign), reference_class(name)
    assert ours == {character for character in ALL if unicodedata.category(character)[0] == name[3]}
    assert len(ours & theirs) > 1700
    assert not {character for character in theirs - ours if known(character)}
    assert not (ours - theirs) - reference_class(r"\p{Cn}")


def test_white_space_is_the_same_everywhere():
    spaces = {character for character in ALL if re.match(f"[{SPACES}]", character)}
    assert spaces == reference_class(r"\s")
    assert len(spaces) == 25
    assert all(gpt2_words(f"{space}{space}a") == reference_words(f"{space}{space}a") for space in spaces)
    # Python's own idea of white space has four control characters more
    assert {character for character in ALL if character.isspace()} - spaces == set("\x1c\x1d\x1e\x1f")
    assert gpt2_words("a \x1c b") == reference_words("a \x1c b") == ["a", " \x1c", " b"]
