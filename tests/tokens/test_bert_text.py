"""BERT's words against the tokenizers library's: every character of Unicode, and random texts."""

import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from papercode.tokens.bert_text import CHINESE, BertText, is_chinese, is_punctuation, joined

SETTINGS = [
    (lower, strip, chinese) for lower in (True, False) for strip in (None, True, False) for chinese in (True, False)
]
MOVED = "\u166d\u1734\u1885\u1886"  # whose category Unicode has changed after 3.2, and after the library's tables
EXTENSION_E = range(0x2B820, 0x2B920)  # its first 256 characters are Chinese in BERT's code, and not in the library


def library_words(text, lowercase=True, strip_accents=None, split_chinese=True):
    normalizer = normalizers.BertNormalizer(True, split_chinese, strip_accents, lowercase)
    pieces = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(text))
    return [word for word, _ in pieces]


def disagreeing():
    """The characters between two letters of which the library makes other words than we do."""
    characters = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) not in ("Cs", "Cn", "Co")
    ]
    found = set()
    for one in SETTINGS[:1] + SETTINGS[6:7]:  # uncased and cased
        for start in range(0, len(characters), 256):
            some = characters[start : start + 256]
            text = "\n".join(f"x{character}x" for character in some)
            if BertText(*one)(text) != library_words(text, *one):
                found |= {c for c in some if BertText(*one)(f"x{c}x") != library_words(f"x{c}x", *one)}
    return found


def texts():
    """Of characters on which the tables agree: those of Unicode 3.2, and difficult ones, which come more often."""
    known = st.characters(exclude_categories=("Cs",), exclude_characters=MOVED).filter(
        lambda character: unicodedata.ucd_3_2_0.category(character) != "Cn"
    )
    difficult = st.sampled_from(
        "aA zéÉİıΣσςǅẞ中国豈𠀀한글かガ\u0301\u0308\u3099\u0345👩🏽.,'’$^`|~【】-–_#"
        "\t\n\r\0\x0b\x1c\x85\xa0\u200b\u200d\u2028\u3000\ufffd\ue000"
    )
    return st.text(st.one_of(known, difficult, st.sampled_from("abcdeéABC ")), max_size=40)


def test_characters_on_which_the_tables_disagree_are_few_and_young():
    found = disagreeing()
    assert found >= {chr(code) for code in EXTENSION_E}
    found -= {chr(code) for code in EXTENSION_E}
    assert {c for c in found if unicodedata.ucd_3_2_0.category(c) != "Cn"} <= set(MOVED)
    assert 0 < len(found) < 1200  # 504 with Unicode 14; more with a younger one


def test_chinese_characters_that_the_library_has_forgotten():
    character = chr(EXTENSION_E[0])
    assert BertText()(f"a{character}b") == ["a", character, "b"]
    assert library_words(f"a{character}b") == [f"a{character}b"]


@pytest.mark.parametrize("one", SETTINGS)
@given(text=texts())
@settings(max_examples=60, deadline=None)
def test_random_texts_have_the_words_of_the_library(one, text):
    assert BertText(*one)(text) == library_words(text, *one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,World", ["hello", ",", "world"]),
        ("Crème BRÛLÉE", ["creme", "brulee"]),
        ("İstanbul", ["istanbul"]),
        ("我爱NLP", ["我", "爱", "nlp"]),
        ("ひらカナ ガ 한", ["ひらカナ", "カ", "\u1112\u1161\u11ab"]),  # no voicing mark, and hangul in three parts
        ("a\u200db\x00c\x0bd\ufffde", ["abcde"]),
        ("a\tb\nc\rd\u00a0e\u3000f\u2028g", list("abcdefg")),
        ("$5^2`x`", ["$", "5", "^", "2", "`", "x", "`"]),
        ("5€ ½×", ["5€", "½×"]),  # symbols outside ASCII are no punctuation
        ("की कु", ["की", "क"]),  # a vowel sign with a width of its own stays, one without is an accent
        (
            "a\u3400b\uf900c\U00020000d\U0002a700e\U0002b740f\U0002b820g\U0002f800h",  # one of each Chinese block
            list("a\u3400b\u8c48c\U00020000d\U0002a700e\U0002b740f\U0002b820g\u4e3dh"),
        ),
        ("≠", ["="]),  # decomposes into = and a stroke
        ("", []),
        (" \n", []),
    ],
)
def test_uncased_words_by_hand(text, words):
    assert BertText()(text) == words


def test_each_setting_by_hand():
    text = "Été中x"
    assert BertText()(text) == ["ete", "中", "x"]
    assert BertText(lowercase=False)(text) == ["Été", "中", "x"]
    assert BertText(lowercase=False, strip_accents=True)(text) == ["Ete", "中", "x"]
    assert BertText(strip_accents=False)(text) == ["été", "中", "x"]
    assert BertText(split_chinese=False)(text) == ["ete中x"]


# differences from the paper's code


def test_a_capital_sigma_at_the_end_is_lowered_like_any_other():
    assert BertText()("ΟΔΟΣ") == ["οδοσ"] == library_words("ΟΔΟΣ")
    assert "ΟΔΟΣ".lower() == "οδος"  # what BERT's code makes of it


def test_accents_before_case_is_the_same_as_after_it():
    def stripped(text):
        return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")

    for code in range(sys.maxunicode + 1):
        if not 0xD800 <= code < 0xE000:
            assert stripped(chr(code).lower()) == stripped(stripped(chr(code)).lower())
    assert stripped("İ".lower()) != "İ".lower()  # so that the order could matter


def test_private_use_characters_are_dropped():
    assert BertText()("a\ue000b") == ["ab"] == library_words("a\ue000b")


def test_the_tables_are_those_of_this_python():
    assert is_punctuation("‽") == (unicodedata.category("‽")[0] == "P")
    assert [is_punctuation(c) for c in "!$_€ a1中"] == [True, True, True, False, False, False, False, False]
    assert all(is_chinese(chr(first)) and is_chinese(chr(last)) for first, last in CHINESE)
    assert not any(is_chinese(c) for c in "あア한aー、")


# words to text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], ""),
        (["it", "'", "s", "5", "%", "(", "or", "so", ")", "!"], "it's 5% (or so)!"),
        (["he", "said", "'", "no", "'", "."], "he said ' no '."),
        (["don", "’", "t", "'", "table"], "don’t ' table"),
        (["我", "爱", "nlp", "我", "。"], "我爱 nlp 我 。"),
        (["a", "[", "UNK", "]"], "a [ UNK ]"),  # not a special token
    ],
)
def test_joined_by_hand(words, text):
    assert joined(words) == text


@given(text=texts())
@example("a ' s(b)% .,[UNK]'ll中中a")
@settings(max_examples=100, deadline=None)
def test_joined_words_are_cut_into_the_same_words(text):
    for split in (BertText(), BertText(lowercase=False)):
        words = split(text)
        assert split(joined(words)) == words
