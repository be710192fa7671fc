"""tokenizer.json: what the library writes is read, and what is not implemented is refused by name."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from papercode.tokens.byte_alphabet import byte_characters
from papercode.tokens.byte_bpe import ByteLevelBPE
from papercode.tokens.tokenizer_json import _short, read_tokenizer, write_tokenizer

VOCABULARY = {character: i for i, character in enumerate(byte_characters())} | {"ab": 256, "<s>": 257}


@pytest.fixture
def reference():
    tokenizer = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<s>", "<new>"])
    return tokenizer


@pytest.fixture
def changed(reference, tmp_path):
    """Writes the reference's file with one thing changed: changed("model.dropout", 0.1)."""

    def change(name, value, *, delete=False):
        content = json.loads(reference.to_str())
        *path, last = [int(part) if part.isdigit() else part for part in name.split(".")]
        at = content
        for part in path:
            at = at[part]
        if delete:
            del at[last]
        else:
            at[last] = value
        file = tmp_path / "tokenizer.json"
        file.write_text(json.dumps(content), "utf-8")
        return file

    return change


def test_what_the_library_writes_is_read(reference, tmp_path):
    reference.save(str(tmp_path / "tokenizer.json"))
    vocabulary, merges, special = read_tokenizer(tmp_path / "tokenizer.json")
    assert vocabulary == VOCABULARY | {"<new>": 258}
    assert (merges, special) == ([("a", "b")], ["<s>", "<new>"])
    ours = ByteLevelBPE.from_pretrained(tmp_path)
    assert ours.encode("ab<new>b<s>") == reference.encode("ab<new>b<s>").ids


def test_the_library_reads_what_is_written(tmp_path):
    vocabulary = {"<t>": 300} | VOCABULARY
    write_tokenizer(tmp_path / "tokenizer.json", vocabulary, [("a", "b")], ["<t>", "<s>"])
    reference = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert reference.encode("abb<t>a<s>").ids == [256, VOCABULARY["b"], 300, VOCABULARY["a"], 257]
    assert reference.decode(reference.encode(" é<t>").ids, skip_special_tokens=False) == " é<t>"
    assert read_tokenizer(tmp_path / "tokenizer.json") == (vocabulary, [("a", "b")], ["<s>", "<t>"])
    assert all(token.special and not token.normalized for token in reference.get_added_tokens_decoder().values())
    text = (tmp_path / "tokenizer.json").read_text("utf-8")
    assert list(json.loads(text)["model"]["vocab"].values()) == sorted(vocabulary.values())
    assert "Ġ" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.merges", ["a b"]),  # as older files have it
        ("model.continuing_subword_prefix", ""),
        ("model.end_of_word_suffix", ""),
        ("model.unk_token", "<s>"),
        ("added_tokens", None),
        ("post_processor", None),
        ("post_processor.use_regex", False),
        ("post_processor", {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}),
        ("decoder", None),
        ("decoder.use_regex", False),
        ("normalizer", None),
        ("pre_tokenizer.trim_offsets", False),
        ("version", "1.0"),
    ],
)
def test_what_makes_no_difference(changed, name, value):
    assert read_tokenizer(changed(name, value))[1] == [("a", "b")]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model.type", "WordPiece", "model.type=\"WordPiece\" is not implemented"),
        ("model.dropout", 0.1, "model.dropout=0.1 is not implemented"),
        ("model.continuing_subword_prefix", "##", "model.continuing_subword_prefix=\"##\" is not implemented"),
        ("model.end_of_word_suffix", "</w>", "model.end_of_word_suffix=\"</w>\" is not implemented"),
        ("model.byte_fallback", True, "model.byte_fallback=true is not implemented"),
        ("model.ignore_merges", True, "model.ignore_merges=true is not implemented"),
        ("model.new", 1, "model.new is not known"),
        ("model.vocab", None, "model.vocab is missing"),
        ("model", None, "model.vocab is missing"),
        ("model.merges", [["a", "b", "c"]], "a merge is two pieces, got "),
        ("model.merges", ["ab"], "a merge is two pieces, got \"ab\""),
        ("model.merges", [["a", ""]], "a merge is two pieces, got "),
        ("model.merges", [["a", 1]], "a merge is two pieces, got [\"a\", 1]"),
        ("model.merges", [None], "a merge is two pieces, got null"),
        ("truncation", {"max_length": 3}, "truncation={\"max_length\": 3} is not implemented"),
        ("padding", {"strategy": "x"}, "padding={\"strategy\": \"x\"} is not implemented"),
        ("normalizer", {"type": "NFC"}, "normalizer={\"type\": \"NFC\"} is not implemented"),
        ("pre_tokenizer", None, "pre_tokenizer=null is not implemented"),
        ("pre_tokenizer.type", "Whitespace", "pre_tokenizer.type=\"Whitespace\" is not implemented"),
        ("pre_tokenizer.add_prefix_space", True, "pre_tokenizer.add_prefix_space=true is not implemented"),
        ("pre_tokenizer.use_regex", False, "pre_tokenizer.use_regex=false is not implemented"),
        ("pre_tokenizer.other", 1, "pre_tokenizer.other is not known"),
        ("post_processor.type", "RobertaProcessing", "post_processor.type=\"RobertaProcessing\" is not implemented"),
        ("post_processor", {"type": "TemplateProcessing", "special_tokens": {"x": {}}}, "TemplateProcessing\" is not"),
        ("post_processor", {"type": "Bert", "special_tokens": {}}, "post_processor.type=\"Bert\" is not implemented"),
        ("decoder", {"type": "TemplateProcessing", "special_tokens": {}}, "TemplateProcessing\" is not implemented"),
        ("decoder.type", "Metaspace", "decoder.type=\"Metaspace\" is not implemented"),
        ("added_tokens.0.lstrip", True, "added token '<s>'.lstrip=true is not implemented"),
        ("added_tokens.1.rstrip", True, "added token '<new>'.rstrip=true is not implemented"),
        ("added_tokens.0.single_word", True, "added token '<s>'.single_word=true is not implemented"),
        ("added_tokens.0.color", 1, "added token '<s>'.color is not known"),
        ("added_tokens.0.id", 3, "'<s>' has the ids 257 and 3"),
        ("added_tokens.1.id", 3, "'ă' and '<new>' have the same id 3"),
        ("new", {}, "json.new is not known"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused_by_name(changed, name, value, message):
    with pytest.raises(ValueError, match=r"tokenizer\.json") as error:
        read_tokenizer(changed(name, value))
    assert message in str(error.value)


def test_the_layout_of_older_files(reference, tmp_path):
    """As the file of the released GPT-2: merges as strings, fields that came later missing."""
    content = json.loads(reference.to_str())
    content["model"]["merges"] = ["a b"]
    for name in ("type", "byte_fallback", "ignore_merges"):
        del content["model"][name]
    for part in ("pre_tokenizer", "post_processor", "decoder"):
        content[part] = {"type": "ByteLevel", "add_prefix_space": part != "pre_tokenizer", "trim_offsets": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    ours = ByteLevelBPE.from_pretrained(tmp_path)
    assert ours.encode(" ab<s>") == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(" ab<s>").ids


def test_a_missing_part_is_said(changed):
    with pytest.raises(ValueError, match="pre_tokenizer=null is not implemented"):
        read_tokenizer(changed("pre_tokenizer", None, delete=True))
    with pytest.raises(ValueError, match=r"added_tokens\.0 has no content"):
        read_tokenizer(changed("added_tokens.0.content", None, delete=True))
    with pytest.raises(ValueError, match=r"added_tokens\.0 has no id"):
        read_tokenizer(changed("added_tokens.0.id", None, delete=True))
    with pytest.raises(ValueError, match=r"model\.merges is missing"):
        read_tokenizer(changed("model.merges", None, delete=True))
    with pytest.raises(ValueError, match=r"pre_tokenizer\.type is missing"):
        read_tokenizer(changed("pre_tokenizer.type", None, delete=True))


def test_a_long_value_is_cut_in_the_message(changed):
    with pytest.raises(ValueError, match="…") as error:
        read_tokenizer(changed("normalizer", {"type": "Replace", "content": "x" * 500}))
    assert len(str(error.value)) < 300
    assert _short("é" * 58) == f'"{"é" * 58}"'
    assert _short("é" * 59) == f'"{"é" * 59} …'


def test_tokens_that_eat_the_space_around_them_are_refused(reference, tmp_path):
    reference.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    reference.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"added token '<mask>'\.lstrip=true is not implemented"):
        ByteLevelBPE.from_pretrained(tmp_path)
