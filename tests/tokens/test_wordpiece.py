"""WordPiece against the tokenizers library, id for id, with vocabularies made of the text itself."""

import pickle
import re

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_bert_text import library_words, texts
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertTokenizer

from papercode.tokens.bert_text import BertText
from papercode.tokens.wordpiece import WordPiece
from papercode.tokens.wordpiece_files import SPECIAL

TINY = [*SPECIAL, "un", "##aff", "##able", "##a", "run", "##ning", "the", ",", "."]


def library(vocabulary, split, **settings):
    """The peer, with the special tokens that ours has by default."""
    ids = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", **settings))
    tokenizer.normalizer = normalizers.BertNormalizer(True, split.split_chinese, split.strip_accents, split.lowercase)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
    tokenizer.add_special_tokens([token for token in SPECIAL if token in ids])
    return tokenizer


@st.composite
def vocabularies(draw, words):
    """Special tokens, and pieces of the words: enough that some words can be cut, not so many that all can."""
    pieces = set()
    for word in words:
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, len(word) - 1))
            end = draw(st.integers(start + 1, len(word)))
            pieces.add(("##" if start else "") + word[start:end])
        if draw(st.booleans()):
            pieces |= {word[0], *(f"##{character}" for character in word[1:])}
    return [*SPECIAL, *sorted(pieces)]


@st.composite
def cases(draw):
    split = BertText(draw(st.booleans()), draw(st.sampled_from([None, True, False])), draw(st.booleans()))
    parts = draw(st.lists(st.one_of(texts(), st.sampled_from([*SPECIAL, "[mask]", "[", "#"])), max_size=5))
    text = draw(st.sampled_from(["", " "])).join(parts)
    words = library_words(text, split.lowercase, split.strip_accents, split.split_chinese)
    return split, text, draw(vocabularies(words))


@given(case=cases())
@example((BertText(), "a[MASK]b [mask] [SEP]]", [*SPECIAL, "a", "b", "[", "]"]))
@example((BertText(), "x" * 101 + " " + "x" * 100, [*SPECIAL, "x", "##x", "##xx"]))
@settings(max_examples=300, deadline=None)
def test_ids_and_pieces_of_random_texts_are_those_of_the_library(case):
    split, text, vocabulary = case
    ours, theirs = WordPiece(vocabulary, split=split), library(vocabulary, split).encode(text)
    assert ours.encode(text) == theirs.ids
    assert ours.tokenize(text) == theirs.tokens


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_decoding_without_marks_of_style_is_that_of_the_library(case):
    split, text, vocabulary = case
    ours = WordPiece(vocabulary, split=split)
    ids = [number for number in ours.encode(text) if vocabulary[number] not in ("[CLS]", "[SEP]", "[PAD]")]
    expected = library(vocabulary, split).decode(ids, skip_special_tokens=False)
    assert ours.decode(ids, join=" ".join) == expected


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_a_decoded_text_has_the_same_ids(case):
    split, text, vocabulary = case
    ours = WordPiece(vocabulary, split=split)
    ids = [number for number in ours.encode(text) if vocabulary[number] not in ("[CLS]", "[SEP]", "[PAD]")]
    assert ours.encode(ours.decode(ids)) == ids


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_tokenizer_makes_the_same_ids(parity, lowercase):
    text = "The Café's 3,000 [MASK] 我爱北京 unaffable Σ̈ naïveté! " * 3
    vocabulary = [
        *SPECIAL,
        *sorted({c for w in BertText(lowercase)(text) for c in (w, w[0], *("##" + x for x in w[1:]))}),
    ]
    vocabulary = [token for token in vocabulary if token not in ("unaffable", "3", "##é")]
    theirs = BertTokenizer({token: i for i, token in enumerate(vocabulary)}, do_lower_case=lowercase)
    ours = WordPiece(vocabulary, split=BertText(lowercase))
    ids = [torch.tensor(ids) for ids in (ours.encode(text), theirs.encode(text, add_special_tokens=False))]
    parity("WordPiece", "transformers.BertTokenizer", f"{'uncased' if lowercase else 'cased'}", *ids)
    assert len(set(ids[0].tolist())) > 15
    assert WordPiece(vocabulary, split=BertText(not lowercase)).encode(text) != ids[1].tolist()


@pytest.mark.parametrize("settings", [{}, {"continuing_subword_prefix": "@"}, {"max_input_chars_per_word": 7}])
def test_the_librarys_model_makes_the_same_ids(parity, settings):
    """Random words over few letters, so that greed has choices to make."""
    generator = torch.Generator().manual_seed(1)

    def words(n, longest):
        sizes = torch.randint(1, longest + 1, (n,), generator=generator).tolist()
        return ["".join("abc"[i] for i in torch.randint(3, (size,), generator=generator).tolist()) for size in sizes]

    prefix = settings.get("continuing_subword_prefix", "##")
    vocabulary = list(dict.fromkeys([*SPECIAL, *words(20, 4), *(prefix + word for word in words(20, 3))]))
    text = " ".join(words(500, 11))
    ours = WordPiece(vocabulary, prefix=prefix, longest=settings.get("max_input_chars_per_word", 100))
    theirs = library(vocabulary, BertText(), **settings).encode(text).ids
    name = ", ".join(f"{key}={value}" for key, value in settings.items()) or "greedy choices"
    parity("WordPiece", "tokenizers.models.WordPiece", name, torch.tensor(ours.encode(text)), torch.tensor(theirs))
    assert 0.02 < theirs.count(1) / len(theirs) < 0.9
    assert ours.encode(text) != WordPiece(vocabulary, prefix=prefix, longest=4).encode(text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),  # ##a would fit as well, but ##aff is longer
        ("una", ["un", "##a"]),
        ("unaff running,", ["un", "##aff", "run", "##ning", ","]),
        ("affable", ["[UNK]"]),  # ##aff does not begin a word
        ("unaffablex", ["[UNK]"]),  # the whole word, not its last piece
        ("the xyz.", ["the", "[UNK]", "."]),
        ("the[MASK].", ["the", "[MASK]", "."]),
        ("[mask]", ["[UNK]"] * 3),
        ("", []),
    ],
)
def test_pieces_by_hand(text, pieces):
    tokenizer = WordPiece(TINY)
    assert tokenizer.tokenize(text) == pieces
    assert tokenizer.encode(text) == [TINY.index(piece) for piece in pieces]


def test_one_word_is_taken_as_it_is():
    tokenizer = WordPiece(TINY)
    assert tokenizer.word("running") == [TINY.index("run"), TINY.index("##ning")]
    assert tokenizer.word("Running") == tokenizer.word("the.") == [1]
    assert tokenizer.word("") == []


def test_what_decodes_to_what():
    tokenizer = WordPiece(TINY)
    assert tokenizer.decode(tokenizer.encode("The UNAFFABLE , xyz .")) == "the unaffable, [UNK]."
    assert tokenizer.decode([2, 9, 10, 3, 4, 0, 0]) == "running [MASK]"
    assert tokenizer.decode([6, 5]) == "##aff un"  # a piece that continues nothing
    assert tokenizer.decode(torch.tensor([9, 10])) == "running"
    assert tokenizer.decode([]) == ""


def test_strangers_cannot_write_special_tokens():
    tokenizer = WordPiece([*TINY, "[", "]", "sep"], special=())
    assert tokenizer.tokenize("the [SEP]") == ["the", "[", "sep", "]"]
    overlapping = WordPiece([*TINY, "<e", "<e>"], special=["<e", "<e>"])
    assert overlapping.tokenize("the<e> <e") == ["the", "<e>", "<e"]  # the longer one


def test_of_a_doubled_token_the_last_place_counts():
    doubled = [*TINY, "the"]
    assert WordPiece(doubled).encode("the") == [len(TINY)] == library(doubled, BertText()).encode("the").ids
    assert WordPiece(doubled).decode([TINY.index("the"), len(TINY)]) == "the the"


def test_blank_tokens_hold_their_place():
    assert WordPiece([*TINY, "", "##", "x"]).encode("x the") == [len(TINY) + 2, 11]


def test_words_are_forgotten_when_there_are_many():
    tokenizer = WordPiece(TINY)
    tokenizer._known.full = 3
    for text in ("run the", "un running", "una the unaff", "running the run una"):
        assert tokenizer.encode(text) == WordPiece(TINY).encode(text)
        assert len(tokenizer._known) <= 3


def test_what_is_known_of_words_does_not_leak_out():
    tokenizer = WordPiece(TINY)
    tokenizer.encode("unaffable").append(99)
    assert tokenizer.encode("unaffable") == [5, 6, 7]


def test_a_tokenizer_can_be_pickled():
    tokenizer = pickle.loads(pickle.dumps(WordPiece(TINY)))
    assert tokenizer.encode("unaffable") == [5, 6, 7]
    assert len(tokenizer) == len(TINY)


# differences from the paper


def test_spaces_are_lost():
    tokenizer = WordPiece(TINY)
    assert tokenizer.encode("un  ,the") == tokenizer.encode("un, the")


def test_an_unknown_character_hides_its_word():
    assert WordPiece(TINY).tokenize("unaff€able un") == ["[UNK]", "un"]


# errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unknown": "<unk>"}, "unknown names '<unk>', which is not among the 14 of vocabulary"),
        ({"special": ["<x>"]}, "special names '<x>', which is not among the 14 of vocabulary"),
    ],
)
def test_missing_tokens_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        WordPiece(TINY, **settings)


@pytest.mark.parametrize("number", [14, -1])
def test_ids_without_a_token_are_named(number):
    with pytest.raises(ValueError, match=f"^ids holds {number}, but the vocabulary has the ids 0 to 13$"):
        WordPiece(TINY).decode([5, number])
