"""The files of a released WordPiece vocabulary: vocab.txt with tokenizer_config.json, or tokenizer.json.

They come from BERT [@devlin2019bert] and from the libraries that spread it, not from the paper [@schuster2012japanese].
Imports: `BertText` has the settings of these files; `Config` refuses what nobody has asked for, by name.

What tokenizer.json says about truncation and padding is passed over: the one who calls decides on both.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from papercode.checkpoints.config import Config, read_json
from papercode.tokens.bert_text import BertText

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""BERT's, in the order of its vocabularies."""

# those that are put around a text; no text becomes them
FRAMING = ("[CLS]", "[SEP]", "[PAD]")
_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_JSON, _TXT, _CONFIG = "tokenizer.json", "vocab.txt", "tokenizer_config.json"


def read(folder: str | Path, split: Callable[[str], list[str]] | None = None) -> dict[str, Any]:
    """The arguments of a [`WordPiece`][papercode.tokens.wordpiece.WordPiece] that does what the files say.

    Args:
        folder: That has tokenizer.json or vocab.txt, or one of these files; or a name on the hub.
        split: Instead of what the files say on it.

    Raises:
        FileNotFoundError: If there is neither file.
        ValueError: If a file is damaged, asks for what is not handled, or contradicts another.
    """
    path = Path(folder)
    if not path.exists():
        from papercode.checkpoints.files import resolve

        path = resolve(folder)
    config = read_json(path / _CONFIG) if (path / _CONFIG).is_file() else {}
    if path.is_file():
        found = _tokenizer_json(path) if path.suffix == ".json" else _vocab_txt(path, config)
    elif (path / _JSON).is_file():
        found = _tokenizer_json(path / _JSON)
        if split is None:
            _agree(found["split"], config, path)
    elif (path / _TXT).is_file():
        found = _vocab_txt(path / _TXT, config)
    else:
        raise FileNotFoundError(f"{path} holds neither {_JSON} nor {_TXT}")
    return found if split is None else found | {"split": split}


def write(
    folder: str | Path,
    vocabulary: Sequence[str],
    *,
    split: Callable[[str], list[str]],
    special: Sequence[str],
    unknown: str,
    prefix: str,
    longest: int,
) -> None:
    """vocab.txt and tokenizer_config.json, in a folder that is made if need be.

    Raises:
        ValueError: If they cannot say this.
    """
    if not isinstance(split, BertText):
        raise ValueError(f"split={split!r} cannot be written; only a BertText can")
    usual = sorted(token for token in SPECIAL if token in vocabulary)
    for name, value, only in (("special", sorted(special), usual), ("prefix", prefix, "##"), ("longest", longest, 100)):
        if value != only:
            raise ValueError(f"{name}={value!r} cannot be written; {_TXT} means {only!r}")
    for number, token in enumerate(vocabulary):
        if "\n" in token or "\r" in token:
            raise ValueError(f"vocabulary holds {token!r} (id {number}), which has no place on a line of {_TXT}")
    settings = {
        "do_lower_case": split.lowercase,
        "strip_accents": split.strip_accents,
        "tokenize_chinese_chars": split.split_chinese,
        "tokenizer_class": "BertTokenizer",
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _TXT).write_text("".join(f"{token}\n" for token in vocabulary), "utf-8", newline="\n")
    text = json.dumps(settings | _NAMES | {"unk_token": unknown}, indent=2, ensure_ascii=False)
    (folder / _CONFIG).write_text(text + "\n", "utf-8", newline="\n")


def _vocab_txt(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        lines = path.read_text("utf-8").split("\n")  # not splitlines: U+2028 is a token of some vocabularies
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error})") from error
    vocabulary = lines if lines[-1] else lines[:-1]
    source = path.parent / _CONFIG
    names = {name: _content(config.get(name, token)) for name, token in _NAMES.items()}
    unknown = names.pop("unk_token")
    Config(dict(config) | names, source).expect(
        **{name: _NAMES[name] for name in names}, do_basic_tokenize=True, never_split=None, wordpieces_prefix="##"
    )
    entries = [{"id": int(number), **entry} for number, entry in config.get("added_tokens_decoder", {}).items()]
    added = _add(vocabulary, entries, source)
    special = [token for token in SPECIAL if token in vocabulary]
    special += [token for token in added if token not in special]
    split = BertText(
        config.get("do_lower_case", True), config.get("strip_accents"), config.get("tokenize_chinese_chars", True)
    )
    return {"vocabulary": vocabulary, "split": split, "special": special, "unknown": unknown}


def _tokenizer_json(path: Path) -> dict[str, Any]:
    root = Config(read_json(path), path)
    root.ignore("version", "truncation", "padding")
    model, normalizer = _section(root, "model", "WordPiece"), _section(root, "normalizer", "BertNormalizer")
    ids, prefix = model.take("vocab"), model.take("continuing_subword_prefix")
    found = {"prefix": prefix, "unknown": model.take("unk_token"), "longest": model.take("max_input_chars_per_word")}
    found["split"] = BertText(
        normalizer.take("lowercase"), normalizer.take("strip_accents"), normalizer.take("handle_chinese_chars")
    )
    normalizer.expect(clean_text=True)
    sections = [model, normalizer, _section(root, "pre_tokenizer", "BertPreTokenizer")]
    if root.take("decoder") is not None:
        sections.append(_section(root, "decoder", "WordPiece"))
        sections[-1].expect(prefix=prefix)
        sections[-1].ignore("cleanup")
    _expect_frames(root.take("post_processor"), path)
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{path}: model: the ids of vocab must be 0 to {len(ids) - 1}, each once")
    vocabulary = sorted(ids, key=ids.__getitem__)
    found["special"] = _add(vocabulary, root.take("added_tokens"), path)
    for section in (*sections, root):
        section.finish()
    return found | {"vocabulary": vocabulary}


def _section(root: Config, name: str, kind: str) -> Config:
    values = root.take(name)
    found = values.get("type") if isinstance(values, dict) else values
    if found != kind:
        raise ValueError(f"{root.source} has {name} {found!r}; only {kind!r} is supported")
    section = Config(values, f"{root.source}: {name}")
    section.ignore("type")
    return section


def _expect_frames(processor: Mapping[str, Any] | None, path: Path) -> None:
    """Refuses what does not make [CLS] A [SEP] of a text, and [CLS] A [SEP] B [SEP] of two, with segments 0 and 1."""
    if processor is None:
        return
    if processor.get("type") == "BertProcessing":
        fits = [processor["cls"][0], processor["sep"][0]] == ["[CLS]", "[SEP]"]
    else:
        parts = {name: [_part(part) for part in processor.get(name, [])] for name in ("single", "pair")}
        single = [("[CLS]", 0), ("A", 0), ("[SEP]", 0)]
        fits = parts == {"single": single, "pair": [*single, ("B", 1), ("[SEP]", 1)]}
    if not fits:
        raise ValueError(f"{path} has a post_processor that does not make [CLS] A [SEP] B [SEP]")


def _part(part: Mapping[str, Mapping[str, Any]]) -> tuple[str, int]:
    (values,) = part.values()
    return values["id"], values["type_id"]


def _add(vocabulary: list[str], entries: Iterable[Mapping[str, Any]], source: str | Path) -> list[str]:
    """Appends to the vocabulary what it lacks, and returns all that count where they are written in a text."""
    added = []
    for entry in sorted(entries, key=lambda entry: entry["id"]):
        number, token = entry["id"], entry["content"]
        for flag in ("single_word", "lstrip", "rstrip", "normalized"):
            if entry.get(flag):
                raise ValueError(f"{source}: the added token {token!r} has {flag}=True, which is not handled")
        if number == len(vocabulary):
            vocabulary.append(token)
        if number > len(vocabulary) or vocabulary[number] != token:
            raise ValueError(f"{source}: the added token {token!r} has the id {number}, which is not its place")
        added.append(token)
    return added


def _agree(split: BertText, config: Mapping[str, Any], folder: Path) -> None:
    for name, value in (
        ("do_lower_case", split.lowercase),
        ("strip_accents", split.strip_accents),
        ("tokenize_chinese_chars", split.split_chinese),
    ):
        if config.get(name, value) != value:
            raise ValueError(
                f"{folder / _CONFIG} has {name}={config[name]!r}, but {folder / _JSON} says {value!r}; give split="
            )


def _content(token: str | Mapping[str, Any]) -> str:
    """Of a token that may be written as an object."""
    return token if isinstance(token, str) else token["content"]
