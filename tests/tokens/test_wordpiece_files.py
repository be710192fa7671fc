"""Files that transformers and tokenizers write, read here; ours, read there; and what is refused."""

import json
import re
import subprocess
import sys

import pytest
from test_wordpiece import TINY, library
from tokenizers.processors import BertProcessing, TemplateProcessing
from transformers import BertTokenizer

from papercode.tokens.bert_text import BertText
from papercode.tokens.wordpiece import WordPiece
from papercode.tokens.wordpiece_files import FRAMING, SPECIAL

TEXT = "The unaffable [MASK] naïve 中国. running,"
CONFIG = "tokenizer_config.json"
WORDS = [*TINY, "The", "naive", "naïve", "中", "国", "中国", "\u2028", "$"]


def json_of(folder, change=lambda content: None):
    """A tokenizer.json as the library writes it, changed."""
    tokenizer = library(WORDS, BertText())
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    content = json.loads(tokenizer.to_str())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    return folder


def txt_of(folder, **config):
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in WORDS), "utf-8")
    if config:
        (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip", [True, False, None])
@pytest.mark.parametrize("chinese", [True, False])
def test_what_transformers_saves_is_read(tmp_path, lowercase, strip, chinese):
    """Its tokenizer.json; then vocab.txt with the same tokenizer_config.json."""
    settings = {"do_lower_case": lowercase, "strip_accents": strip, "tokenize_chinese_chars": chinese}
    theirs = BertTokenizer({token: i for i, token in enumerate(WORDS)}, **settings)
    theirs.save_pretrained(tmp_path)
    expected = theirs.encode(TEXT, add_special_tokens=False)
    assert WordPiece.from_pretrained(tmp_path).encode(TEXT) == expected
    (tmp_path / "tokenizer.json").unlink()
    txt_of(tmp_path)
    found = WordPiece.from_pretrained(tmp_path)
    assert found.encode(TEXT) == expected
    assert found.split == BertText(lowercase, strip, chinese)
    assert WordPiece.from_pretrained(tmp_path, split=BertText(not lowercase)).encode(TEXT) != expected


@pytest.mark.parametrize("split", [BertText(), BertText(False), BertText(True, False, False), BertText(False, True)])
def test_what_we_save_is_read_by_transformers_and_by_us(tmp_path, split):
    ours = WordPiece(WORDS, split=split)
    ours.save(tmp_path / "new")
    theirs = BertTokenizer.from_pretrained(tmp_path / "new")
    assert theirs.encode(TEXT, add_special_tokens=False) == ours.encode(TEXT)
    again = WordPiece.from_pretrained(tmp_path / "new")
    assert (again.vocabulary, again.split, again.special) == (ours.vocabulary, split, ours.special)


def test_what_is_written(tmp_path):
    settings = """{
  "do_lower_case": true,
  "strip_accents": null,
  "tokenize_chinese_chars": true,
  "tokenizer_class": "BertTokenizer",
  "pad_token": "[PAD]",
  "unk_token": "中",
  "cls_token": "[CLS]",
  "sep_token": "[SEP]",
  "mask_token": "[MASK]"
}
"""
    WordPiece([*SPECIAL[:4], "a", "##é", "中"], unknown="中").save(tmp_path / "deep" / "new")
    vocabulary, config = ((tmp_path / "deep" / "new" / name).read_bytes().decode() for name in ("vocab.txt", CONFIG))
    assert vocabulary == "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##é\n中\n"
    assert config == settings
    assert WordPiece.from_pretrained(tmp_path / "deep" / "new").tokenize("b a") == ["中", "a"]


@pytest.mark.parametrize("processor", ["bert", "template", None])
def test_tokenizer_json_of_the_library_is_read(tmp_path, processor):
    tokenizer = library(WORDS, BertText(), continuing_subword_prefix="##", max_input_chars_per_word=8)
    if processor == "bert":
        tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    elif processor == "template":
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer.add_special_tokens(["<new>", "the"])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = f"{TEXT} <new>the"
    for place in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        found = WordPiece.from_pretrained(place)
        assert found.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids
        assert found.longest == 8
        assert set(found.special) == {*SPECIAL, "<new>", "the"}


def test_added_tokens_of_the_config_join_vocab_txt(tmp_path):
    entry = {"content": "<new>", "special": True, "normalized": False, "lstrip": False}
    entries = {str(len(WORDS) + 1): {"content": "<next>"}, str(len(WORDS)): entry, "0": {"content": "[PAD]"}}
    txt_of(tmp_path, added_tokens_decoder=entries, unk_token={"content": "un"})
    found = WordPiece.from_pretrained(tmp_path)
    assert found.tokenize("the<new>xyz<next>") == ["the", "<new>", "un", "<next>"]
    assert found.special == (*SPECIAL, "<new>", "<next>")


def test_vocab_txt_alone_is_uncased(tmp_path):
    assert WordPiece.from_pretrained(txt_of(tmp_path)).tokenize("THE") == ["the"]
    assert WordPiece.from_pretrained(tmp_path).split == BertText()
    assert WordPiece.from_pretrained(tmp_path / "vocab.txt", split=BertText(False)).tokenize("The") == ["The"]


def test_lines_end_at_line_feeds_only(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("[UNK]\r\n\u2028\r\n\r\n x\u0085\r\na".encode())
    assert WordPiece.from_pretrained(tmp_path).vocabulary == ("[UNK]", "\u2028", "", " x\u0085", "a")


def test_a_name_that_is_no_folder_is_looked_up(tmp_path):
    with pytest.raises(FileNotFoundError, match="/nowhere is no folder"):
        WordPiece.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r" holds neither tokenizer\.json nor vocab\.txt$"):
        WordPiece.from_pretrained(tmp_path)


def set_at(*path):
    """A change of tokenizer.json: the last of path is put at the place that the others name."""
    *places, last, value = path

    def change(content):
        for place in places:
            content = content[place]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("model", "type", "BPE"), "has model 'BPE'; only 'WordPiece' is supported"),
        (set_at("model", "dropout", 0.1), "model holds attributes that are not handled: dropout=0.1"),
        (set_at("model", "vocab", "the", 5), "model: the ids of vocab must be 0 to 21, each once"),
        (set_at("normalizer", None), "has normalizer None; only 'BertNormalizer' is supported"),
        (set_at("normalizer", {"type": "NFC"}), "has normalizer 'NFC'; only 'BertNormalizer' is supported"),
        (set_at("normalizer", "clean_text", False), "normalizer has clean_text=False; only True is supported"),
        (set_at("normalizer", "new", 1), "normalizer holds attributes that are not handled: new=1"),
        (set_at("pre_tokenizer", "type", "Whitespace"), "has pre_tokenizer 'Whitespace'; only 'BertPreTokenizer'"),
        (set_at("pre_tokenizer", "new", 1), "pre_tokenizer holds attributes that are not handled: new=1"),
        (set_at("decoder", "type", "ByteLevel"), "has decoder 'ByteLevel'; only 'WordPiece' is supported"),
        (set_at("decoder", "new", 1), "decoder holds attributes that are not handled: new=1"),
        (set_at("decoder", "prefix", "@"), "decoder has prefix='@'; only '##' is supported"),
        (set_at("post_processor", "cls", ["<s>", 2]), "has a post_processor that does not make [CLS] A [SEP] B [SEP]"),
        (set_at("post_processor", {"type": "ByteLevel"}), "has a post_processor that does not make [CLS] A [SEP]"),
        (set_at("added_tokens", 4, "lstrip", True), "the added token '[MASK]' has lstrip=True, which is not handled"),
        (set_at("added_tokens", 4, "rstrip", True), "the added token '[MASK]' has rstrip=True, which is not handled"),
        (set_at("added_tokens", 4, "single_word", True), "the added token '[MASK]' has single_word=True, which is not"),
        (set_at("added_tokens", 4, "normalized", True), "the added token '[MASK]' has normalized=True"),
        (set_at("added_tokens", 4, "id", 9), "the added token '[MASK]' has the id 9, which is not its place"),
        (set_at("added_tokens", 4, "id", 30), "the added token '[MASK]' has the id 30, which is not its place"),
        (set_at("future", {}), "holds attributes that are not handled: future={}"),
        (lambda content: content.pop("model"), "does not say model"),
        (lambda content: content["model"].pop("vocab"), "model does not say vocab"),
    ],
)
def test_what_tokenizer_json_asks_and_we_do_not_do_is_named(tmp_path, change, message):
    json_of(tmp_path)
    assert WordPiece.from_pretrained(tmp_path).vocabulary == tuple(WORDS)
    json_of(tmp_path, change)
    with pytest.raises(ValueError, match=re.escape(message)):
        WordPiece.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_basic_tokenize": False}, "tokenizer_config.json has do_basic_tokenize=False; only True is supported"),
        ({"never_split": ["x"]}, "tokenizer_config.json has never_split=['x']; only None is supported"),
        ({"wordpieces_prefix": "@"}, "tokenizer_config.json has wordpieces_prefix='@'; only '##' is supported"),
        ({"cls_token": "<s>"}, "tokenizer_config.json has cls_token='<s>'; only '[CLS]' is supported"),
        ({"mask_token": {"content": "<m>"}}, "tokenizer_config.json has mask_token='<m>'; only '[MASK]' is supported"),
        ({"unk_token": "<u>"}, "unknown names '<u>'"),
        ({"added_tokens_decoder": {"99": {"content": "x"}}}, "the added token 'x' has the id 99"),
    ],
)
def test_what_tokenizer_config_asks_and_we_do_not_do_is_named(tmp_path, config, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        WordPiece.from_pretrained(txt_of(tmp_path, **config))


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [("do_lower_case", False, True), ("strip_accents", True, None), ("tokenize_chinese_chars", False, True)],
)
def test_files_that_contradict_each_other_are_refused_until_told(tmp_path, name, value, other):
    json_of(txt_of(tmp_path, **{name: value}))
    message = rf"tokenizer_config.json has {name}={value}, but .*tokenizer.json says {other}; give split="
    with pytest.raises(ValueError, match=message):
        WordPiece.from_pretrained(tmp_path)
    assert WordPiece.from_pretrained(tmp_path, split=BertText(False)).tokenize("The") == ["The"]


@pytest.mark.parametrize(("content", "message"), [(b"{", "is no JSON"), (b"[]", "holds list, not an object")])
def test_damaged_json_is_named(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"tokenizer.json {message}"):
        WordPiece.from_pretrained(tmp_path)


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[UNK]\n\xff")
    with pytest.raises(ValueError, match=r"vocab.txt is not UTF-8"):
        WordPiece.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (lambda: WordPiece(TINY, split=str.split), "cannot be written; only a BertText can"),
        (lambda: WordPiece(TINY, special=()), "special=[] cannot be written; vocab.txt means ['[CLS]', '[MASK]'"),
        (lambda: WordPiece(TINY, prefix="@"), "prefix='@' cannot be written; vocab.txt means '##'"),
        (lambda: WordPiece(TINY, longest=9), "longest=9 cannot be written; vocab.txt means 100"),
        (lambda: WordPiece([*TINY, "a\rb"]), "vocabulary holds 'a\\rb' (id 14), which has no place on a line"),
        (lambda: WordPiece([*TINY, "a\nb"]), "vocabulary holds 'a\\nb' (id 14), which has no place on a line"),
    ],
)
def test_what_the_files_cannot_say_is_not_written(tmp_path, tokenizer, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tokenizer().save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_framing_tokens_are_special():
    assert set(FRAMING) < set(SPECIAL)


def test_tokenizing_needs_no_torch(tmp_path):
    """Nor transformers, nor tokenizers."""
    WordPiece(TINY).save(tmp_path)
    code = (
        "import sys; from papercode.tokens.bert_inputs import batch; from papercode.tokens.wordpiece import WordPiece\n"
        f"assert batch(WordPiece.from_pretrained({str(tmp_path)!r}), ['the']).ids == [[2, 11, 3]]\n"
        "assert not {'torch', 'transformers', 'tokenizers', 'numpy', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
