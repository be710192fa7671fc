"""Byte-level BPE against `tokenizers` and transformers' GPT-2, there and back for any text and any bytes."""

import pickle
import subprocess
import sys

import pytest
import torch
from bpe_texts import byte_level_reference, real_text, unicode_text, vocabulary_and_merges
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from papercode.tokens.bpe import BPE
from papercode.tokens.byte_alphabet import byte_characters
from papercode.tokens.byte_bpe import ByteLevelBPE, from_printable, printable
from papercode.tokens.utf8_recovery import utf8_recover

END = "<|endoftext|>"
MIXED = [
    "The cat sat on the mat. The cats' mats; the rat's hat.",
    "猫坐在垫子上。猫喜欢垫子。",
    "Кошка сидит, кошки сидят.",
    "🙂🙃🙂",
]
OURS = ByteLevelBPE.learn(MIXED * 2 + list(real_text()[:20]), 700, special=[END, "<|end|>", "<|"])
THEIRS = byte_level_reference(OURS.vocabulary, OURS.merges, OURS.special)


@pytest.mark.parametrize("size", [257, 700, 4000])
def test_tokenizers_learns_the_same(size):
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet, special_tokens=[END])
    texts = MIXED * 3 + list(real_text()[:40])
    reference.train_from_iterator(texts, trainer)
    ours = ByteLevelBPE.learn(texts, size - 257, special=[END])
    assert vocabulary_and_merges(reference) == (ours.vocabulary, ours.merges)
    assert len(ours.vocabulary) == size


def test_real_text_has_the_ids_of_tokenizers(parity):
    texts = real_text()[:60]
    mine, other = (
        [torch.tensor(OURS.encode(text)) for text in texts],
        [torch.tensor(THEIRS.encode(text).ids) for text in texts],
    )
    parity("ByteLevelBPE", "tokenizers.models.BPE", "60 texts", mine, other)
    for text in texts:
        ids = OURS.encode(text)
        assert OURS.tokenize(text) == THEIRS.encode(text).tokens
        assert OURS.decode(ids) == text


@settings(max_examples=500, deadline=None)
@given(unicode_text)
def test_random_text_has_the_ids_of_tokenizers(text):
    ids = OURS.encode(text)
    assert ids == THEIRS.encode(text).ids
    assert OURS.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    """Whatever the tables of Unicode say."""
    assert OURS.decode(OURS.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_come_back(data):
    assert OURS.decode_bytes(OURS.encode_bytes(data)) == data
    assert utf8_recover(OURS.decode_bytes(OURS.encode_bytes(data))) == data.decode("utf-8", "ignore")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(OURS.vocabulary) - 1), max_size=20))
def test_any_ids_are_decoded_as_by_tokenizers(ids):
    assert OURS.decode([i for i in ids if i > 2]) == THEIRS.decode([i for i in ids if i > 2], skip_special_tokens=False)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([END, "<|end|>", "<|", "|>", " ", "end", "of", "<", "中"]), max_size=12).map("".join))
def test_special_tokens_are_never_split(text):
    ids = OURS.encode(text)
    assert ids == THEIRS.encode(text).ids
    assert OURS.decode(ids) == text
    assert ids.count(OURS.vocabulary[END]) == text.count(END)


def test_special_tokens_that_look_like_pieces(tmp_path):
    """One that is a merge's product too, and one whose characters stand for no byte."""
    ours = ByteLevelBPE([("a", "b")], special=["ab", "< 中>"])
    ours.save(tmp_path)
    for tokenizer in (ours, ByteLevelBPE.from_pretrained(tmp_path)):
        assert tokenizer.special == ("ab", "< 中>")
        assert tokenizer.decode(tokenizer.encode("a< 中>ab")) == "a< 中>ab"


def test_special_tokens_are_not_learned_from():
    learned = ByteLevelBPE.learn([f"ab{END}" * 9], 5, special=[END])
    assert learned.merges == [("a", "b")]
    assert learned.tokenize(f"ab{END}|>") == ["ab", END, "|", ">"]


def test_by_hand():
    # aa is the first pair, then aa·b; the ids 0 to 255 are the bytes in the order of their printable characters
    ours = ByteLevelBPE.learn(["aab aab"], 2, words=str.split)
    assert ours.merges == [("a", "a"), ("aa", "b")]
    assert ours.encode("aabaa") == [257, 256]
    assert ours.encode("aab") != ours.encode("ab") == [ours.vocabulary["a"], ours.vocabulary["b"]]
    assert ours.vocabulary["!"] == 0
    assert ours.tokenize("a中") == ["a", "ä", "¸", "Ń"]
    assert ours.decode_bytes(ours.encode("中")[:2]) == b"\xe4\xb8"
    assert ours.decode(ours.encode("中")[:2]) == "\ufffd"


def test_words_are_cut_by_the_function_that_is_given(tmp_path):
    def whole(text):
        return [text]

    ours = ByteLevelBPE.learn(["a b a b"], 2, words=whole)
    assert ours.tokenize("a b") == ["aĠb"]  # GPT-2's words end before a space
    ours.save(tmp_path)
    assert ByteLevelBPE.from_pretrained(tmp_path).tokenize("a b") == ["a", "Ġ", "b"]
    assert ByteLevelBPE.from_pretrained(tmp_path, words=whole).tokenize("a b") == ["aĠb"]
    (tmp_path / "tokenizer.json").unlink()
    assert ByteLevelBPE.from_pretrained(tmp_path, words=whole).tokenize("a b") == ["aĠb"]


def test_merges_may_be_of_any_pairs():
    """As JSON has them."""
    ours = ByteLevelBPE(map(list, ["ab"]))
    assert ours.merges == [("a", "b")]
    assert ours.tokenize("ab a") == ["ab", "Ġ", "a"]


def test_bytes_that_are_no_text_can_be_learned_from():
    assert ByteLevelBPE.learn([b"\xff\xfe\xff\xfe".decode("utf-8", "surrogateescape")], 1).merges == [("ÿ", "þ")]


def test_words_are_remembered_and_forgotten(monkeypatch):
    ours = ByteLevelBPE(OURS.merges, OURS.vocabulary)
    expected = ours.encode("the cat the cat")
    ours._cache.size = 2
    assert [ours.encode("the cat the cat") for _ in range(3)] == [expected] * 3
    monkeypatch.setattr(ours._cache, "encode", None)
    assert ours.encode("the cat") == expected[: len(ours.encode("the cat"))]
    with pytest.raises(TypeError):
        ours.encode("a new word")


def test_changing_what_is_returned_changes_nothing_inside():
    ids = OURS.encode("the")
    ids.append(0)
    OURS.encode("the").clear()
    assert OURS.encode("the") == ids[:-1]


@pytest.mark.parametrize("special", [(), (END,)])
def test_transformers_reads_what_is_saved_and_the_other_way_round(tmp_path, special):
    from transformers import GPT2Tokenizer

    ours = ByteLevelBPE.learn(MIXED, 150, special=special)
    ours.save(tmp_path / "ours")
    theirs = Tokenizer.from_file(str(tmp_path / "ours" / "tokenizer.json"))
    if special:
        gpt2 = GPT2Tokenizer.from_pretrained(tmp_path / "ours")
        gpt2.save_pretrained(tmp_path / "theirs")
        back = ByteLevelBPE.from_pretrained(tmp_path / "theirs")
        assert (back.vocabulary, back.merges, back.special) == (ours.vocabulary, ours.merges, ours.special)
    for text in [*MIXED, f"a{END} b \n\n {END}{END}", "٣½ᚠ"]:
        ids = ours.encode(text)
        assert theirs.encode(text).ids == ids
        assert theirs.decode(ids, skip_special_tokens=False) == text
        if special:
            assert gpt2(text)["input_ids"] == back.encode(text) == ids
            assert gpt2.decode(ids) == ours.decode(ids) == text


def test_both_layouts_give_the_same(tmp_path):
    OURS.save(tmp_path)
    by_json = ByteLevelBPE.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    by_files = ByteLevelBPE.from_pretrained(str(tmp_path))
    assert by_json.special == OURS.special
    assert set(by_files.special) == set(OURS.special)  # what no text could give otherwise
    for found in (by_json, by_files):
        assert (found.vocabulary, found.merges) == (OURS.vocabulary, OURS.merges)
        assert found.encode(f"the cat{END}") == OURS.encode(f"the cat{END}")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        ByteLevelBPE.from_pretrained(tmp_path)


def test_the_pieces_of_bytes_need_not_be_characters():
    """What it is about: characters share their first bytes, so that a merge can join a part of one."""
    ours = ByteLevelBPE.learn(["中中丮丮丯"], 1)
    assert ours.merges == [("ä", "¸")]
    assert [from_printable(piece) for piece in ours.tokenize("中串")] == [b"\xe4\xb8", b"\xad", b"\xe4\xb8", b"\xb2"]
    # BPE of characters has nothing for 串
    with pytest.raises(ValueError, match="'串' is not in the vocabulary"):
        BPE.learn(["中中丮丮丯"], 1).encode("中串")


def test_printable():
    assert printable(b" a\n\xff") == "ĠaĊÿ"
    assert from_printable("ĠaĊÿ") == b" a\n\xff"
    assert from_printable(printable(bytes(range(256)))) == bytes(range(256))
    with pytest.raises(ValueError, match="piece 'a b': ' ' stands for no byte"):
        from_printable("a b")


def test_it_can_be_pickled():
    copy = pickle.loads(pickle.dumps(OURS))
    assert copy.encode(f"the cat{END}") == OURS.encode(f"the cat{END}")


def test_errors():
    with pytest.raises(ValueError, match="ids: 99999 is not in the vocabulary"):
        OURS.decode([1, 99999])
    with pytest.raises(ValueError, match=r"'\\ud800' is half a surrogate pair"):
        OURS.encode("!\ud800!")
    characters = {character: i for i, character in enumerate(byte_characters())}
    with pytest.raises(ValueError, match="'z' is not in the vocabulary; all 256 bytes"):
        ByteLevelBPE([], {character: i for character, i in characters.items() if character != "z"})
    with pytest.raises(ValueError, match=r"'<s>' is not in the vocabulary; all 256 bytes and all special tokens"):
        ByteLevelBPE([], characters, special=["<s>"])
    with pytest.raises(ValueError, match="vocabulary: 'a' and 'extra' have the same id"):
        ByteLevelBPE([], {**characters, "extra": characters["a"]})
    with pytest.raises(ValueError, match="merge 0, 'a' 'b': 'ab' is not in the vocabulary"):
        ByteLevelBPE([("a", "b")], characters)
    with pytest.raises(ValueError, match="piece 'x y': ' ' stands for no byte"):
        ByteLevelBPE([], {**characters, "x y": 256}, special=[])
    with pytest.raises(TypeError, match="texts must be several texts"):
        ByteLevelBPE.learn("a b", 3)


def test_no_torch():
    code = (
        "import sys; from papercode.tokens.bpe import BPE; from papercode.tokens.byte_bpe import ByteLevelBPE\n"
        "for kind in (ByteLevelBPE, BPE): assert kind.learn(['ab ab'], 1).tokenize('ab')[0] == 'ab'\n"
        "assert not {'torch', 'transformers', 'tokenizers', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
