"""BPE against `tokenizers` and transformers' GPT tokenizer, values by hand, and the vocabulary threshold."""

import pickle

import pytest
import torch
from bpe_texts import real_text, unicode_text
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from papercode.tokens.bert_text import BertText
from papercode.tokens.bpe import BPE, end_apart, end_attached, frequent
from papercode.tokens.bpe_training import algorithm_1, learn_merges

TOY = " ".join(["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)
FIGURE_1 = [("r", "·"), ("l", "o"), ("lo", "w"), ("e", "r·")]


def test_figure_1_of_the_paper():
    """The word that is not in the dictionary: low er·."""
    alphabet = [*"deilnorstw·", "r·", "lo", "low", "er·"]
    tokenizer = BPE(FIGURE_1, {piece: i for i, piece in enumerate(alphabet)}, end="·")
    assert tokenizer.tokenize("lower") == ["low", "er·"]
    assert tokenizer.encode("lower newer") == [13, 14, 4, 1, 9, 14]
    assert tokenizer.decode(tokenizer.encode("lower newer")) == "lower newer"
    assert tokenizer.tokenize("lowest") == ["low", "e", "s", "t", "·"]


def test_the_toy_corpus():
    tokenizer = BPE.learn([TOY], 10)
    assert tokenizer.merges == learn_merges({(*word, "</w>"): TOY.split().count(word) for word in set(TOY.split())}, 10)
    # the vocabulary has every character and every product, used or not
    assert len(tokenizer.vocabulary) == 11 + 10
    assert sorted(tokenizer.vocabulary.values()) == list(range(21))
    assert tokenizer.tokenize("lowest newer") == ["low", "est</w>", "new", "e", "r", "</w>"]
    assert "es" not in tokenizer.tokenize(TOY)
    assert tokenizer.decode(tokenizer.encode(TOY)) == TOY


def test_the_merges_of_the_listing_give_its_segmentation():
    words = {(*word, "</w>"): TOY.split().count(word) for word in dict.fromkeys(TOY.split())}
    tokenizer = BPE(algorithm_1(words, 10))
    assert tokenizer.tokenize("low") == ["low</w>"]
    assert tokenizer.tokenize("owest") == ["o", "w", "est</w>"]
    assert "d" not in tokenizer.vocabulary  # no merge has it; learn() keeps all characters of the text


def test_a_vocabulary_of_its_own():
    tokenizer = BPE([("b", "a"), ("ba", "</w>")], special=["<s>"], unknown="<unk>")
    assert list(tokenizer.vocabulary) == ["<s>", "<unk>", "</w>", "a", "b", "ba", "ba</w>"]
    learned = BPE.learn(["ba ba c"], 1, special=["<s>"], unknown="<unk>")
    assert list(learned.vocabulary) == ["<s>", "<unk>", "</w>", "a", "b", "c", "a</w>"]


def test_two_ways_to_mark_the_end():
    assert end_apart("low", "</w>") == ["l", "o", "w", "</w>"]
    assert end_attached("low", "</w>") == ["l", "o", "w</w>"]
    assert end_attached("l", "·") == ["l·"]
    apart, attached = BPE.learn([TOY], 5), BPE.learn([TOY], 5, spell=end_attached)
    assert attached.merges == [("e", "s"), ("es", "t</w>"), ("l", "o"), ("e", "w"), ("n", "ew")]
    assert apart.merges[1] == ("t", "</w>")
    for tokenizer in (apart, attached):
        assert tokenizer.decode(tokenizer.encode(TOY)) == TOY


OURS = BPE.learn(real_text()[:30], 800, spell=end_attached, unknown="<unk>", special=["<s>", "<s>x"])


def reference(tokenizer, words):
    model = models.BPE(
        vocab=tokenizer.vocabulary, merges=tokenizer.merges, unk_token=tokenizer.unknown, end_of_word_suffix="</w>"
    )
    theirs = Tokenizer(model)
    theirs.pre_tokenizer, theirs.decoder = words, decoders.BPEDecoder(suffix="</w>")
    return theirs


def test_real_text_has_the_ids_of_tokenizers(parity):
    theirs = reference(OURS, pre_tokenizers.WhitespaceSplit())
    texts = real_text()[20:60]
    mine, other = (
        [torch.tensor(tokenizer(text)) for text in texts]
        for tokenizer in (OURS.encode, lambda text: theirs.encode(text).ids)
    )
    parity("BPE", "tokenizers.models.BPE", "40 texts", mine, other)
    for text in texts:
        ids = OURS.encode(text)
        assert OURS.decode(ids) == theirs.decode(ids, skip_special_tokens=False)
    assert OURS.decode(OURS.encode(real_text()[3])) == " ".join(real_text()[3].split())


@settings(max_examples=300, deadline=None)
@given(unicode_text)
def test_random_text_has_the_ids_of_tokenizers(text):
    """With unknown characters, each by itself. (Python's split also cuts at four control characters.)"""
    text = text.translate(dict.fromkeys(range(0x1C, 0x20)))
    assert OURS.encode(text) == reference(OURS, pre_tokenizers.WhitespaceSplit()).encode(text).ids


gpt_text = st.text(st.sampled_from("abeLOW estNéÅ,.!?'-_$^~`|\t\n 中文語か한\u0301\u200b²½Σß🙂\xa0\u3000"), max_size=40)


@settings(max_examples=300, deadline=None)
@given(gpt_text)
def test_gpts_flavour_has_the_ids_of_transformers(text):
    assert GPT.encode(text) == OPENAI(text)["input_ids"]
    assert GPT.decode(GPT.encode(text)) == OPENAI.decode(OPENAI(text)["input_ids"])


@pytest.fixture(scope="module", autouse=True)
def gpt(tmp_path_factory):
    """Our reader and transformers' on the same two files."""
    from transformers import OpenAIGPTTokenizer

    global GPT, OPENAI
    folder = tmp_path_factory.mktemp("gpt")
    texts = ["Low, lower, lowest: WE newest!", *real_text()[:10], "中文 est"]
    BPE.learn(texts, 300, spell=end_attached, words=BertText(), unknown="<unk>").save(folder)
    GPT = BPE.from_pretrained(folder, words=BertText())
    OPENAI = OpenAIGPTTokenizer.from_pretrained(folder)


def test_gpts_flavour_by_hand():
    assert GPT.decode(GPT.encode("Lowest  PRICES, naïve!")) == "lowest prices , naive !"
    assert GPT.tokenize("🙂")[-1] == "<unk>"


def test_special_tokens_are_never_split():
    ids = OURS.encode("the <s> end<s>x the")
    assert ids.count(OURS.vocabulary["<s>"]) == ids.count(OURS.vocabulary["<s>x"]) == 1
    assert OURS.decode(ids) == "the <s> end <s>x the"
    assert OURS.decode(OURS.encode("<s>")) == "<s>"
    # nor learned from
    learned = BPE.learn(["ab<s>ab <s>"], 5, special=["<s>"])
    assert list(learned.vocabulary) == ["<s>", "</w>", "a", "b", "ab", "ab</w>"]


def test_unknown_characters():
    assert OURS.tokenize("ⅷ the")[0] == "<unk>"
    with pytest.raises(ValueError, match="'z' is not in the vocabulary, and there is no unknown piece"):
        BPE.learn([TOY], 3).encode("low z")


def test_joint_bpe_spells_names_alike():
    """The same name is cut differently where each language learns alone."""
    english, other = "oboe oboe obama over", "mama mama amada obama"
    assert BPE.learn([english], 5).tokenize("obama") == ["ob", "a", "m", "a</w>"]
    assert BPE.learn([other], 5).tokenize("obama") == ["o", "b", "a", "ma</w>"]
    joint = BPE.learn([english, other], 5)
    assert joint.tokenize("obama") == ["ob", "ama</w>"]
    assert joint.merges == BPE.learn([f"{english} {other}"], 5).merges


def test_pieces_that_one_language_has_not_seen_are_split_back():
    english, german = "low low low lower lowest", "der bower der mower der rower"
    joint = BPE.learn([english, german], 12)
    assert joint.tokenize("lower bower") == ["low", "er</w>", "bower</w>"]
    seen = frequent(joint, [english], 2)
    assert seen == {"low</w>", "low"}
    # er</w> occurs once, and goes back to er and </w>, and er to e and r; bower</w> step by step as far
    restricted = joint.restricted(seen)
    assert restricted.tokenize("low lower") == ["low</w>", "low", "e", "r", "</w>"]
    assert joint.restricted({*seen, "er</w>"}).tokenize("lower bower") == ["low", "er</w>", "b", "o", "w", "er</w>"]
    assert joint.restricted({*seen, "ower</w>"}).tokenize("bower") == ["b", "ower</w>"]
    assert joint.restricted(joint.vocabulary).encode(english + german) == joint.encode(english + german)
    assert joint.restricted(set()).tokenize("low der") == [*"low", "</w>", *"der", "</w>"]
    assert restricted.decode(restricted.encode("lower low")) == "lower low"
    assert joint.tokenize("lower") == ["low", "er</w>"]  # it has not changed itself
    assert restricted.restricted(joint.vocabulary).tokenize("lower") == ["low", "er</w>"]


def test_frequent_counts_pieces():
    tokenizer = BPE([("a", "</w>")])
    tokenizer = BPE([("a", "</w>")], tokenizer.vocabulary | {"b": 3})
    assert frequent(tokenizer, ["a b", "a"], 1) == {"a</w>", "b", "</w>"}
    assert frequent(tokenizer, ["a b", "a"], 2) == {"a</w>"}
    assert frequent(tokenizer, ["a b", "a"], 3) == set()


def test_saved_and_read(tmp_path):
    OURS.save(tmp_path)
    read = BPE.from_pretrained(str(tmp_path), special=["<s>", "<s>x"])
    assert (read.vocabulary, read.merges) == (OURS.vocabulary, OURS.merges)
    text = real_text()[7] + "<s>xⅷ"
    assert read.encode(text) == OURS.encode(text)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        BPE.from_pretrained(tmp_path)


def test_files_that_do_not_fit_together(tmp_path):
    OURS.save(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nQ Q\n", "utf-8")
    with pytest.raises(ValueError, match="merge 0, 'Q' 'Q': 'QQ' is not in the vocabulary"):
        BPE.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'<pad>' is not in the vocabulary"):
        BPE.from_pretrained(tmp_path, special=["<pad>"])


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(OURS)).encode("the low") == OURS.encode("the low")


def test_errors():
    with pytest.raises(ValueError, match="ids: 99999 is not in the vocabulary"):
        OURS.decode([99999])
    with pytest.raises(ValueError, match="'<unk>' is not in the vocabulary"):
        BPE([], {"a": 0}, unknown="<unk>")
    with pytest.raises(ValueError, match="end must not be empty"):
        BPE([], end="")
    with pytest.raises(TypeError, match="texts must be several texts"):
        BPE.learn(TOY, 3)
