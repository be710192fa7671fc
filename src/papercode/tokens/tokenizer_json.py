r"""tokenizer.json, in which the `tokenizers` library keeps a whole tokenizer, for byte-level BPE [@wang2020neural].

Imports: the reading of JSON from BPE's files [@sennrich2016neural].

The file says everything: how text is made uniform, cut, merged and completed. What is not implemented is refused by
name, so that no tokenizer is ever taken for another.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from papercode.checkpoints.config import read_json
from papercode.tokens.bpe_files import checked_vocabulary
from papercode.tokens.bpe_training import Merge

TOKENIZER = "tokenizer.json"

# What each part of the file may say; offsets into the text, which trim_offsets is about, are not kept at all
ANY = [True, False]
BYTE_LEVEL: dict[str, list[Any]] = {
    "type": ["ByteLevel"],
    "add_prefix_space": [False],
    "trim_offsets": ANY,
    "use_regex": [True],
}
PARTS: dict[str, dict[str, list[Any]] | None] = {
    "truncation": None,
    "padding": None,
    "normalizer": None,
    "pre_tokenizer": BYTE_LEVEL,
    "post_processor": BYTE_LEVEL | {"add_prefix_space": ANY, "use_regex": ANY},  # moves offsets only
    "decoder": BYTE_LEVEL | {"add_prefix_space": ANY, "use_regex": ANY},
}
MODEL: dict[str, list[Any] | None] = {
    "type": ["BPE"],
    "dropout": [None],
    "continuing_subword_prefix": [None, ""],
    "end_of_word_suffix": [None, ""],
    "byte_fallback": [False],
    "ignore_merges": [False],
    "vocab": None,
    "merges": None,
    "unk_token": None,  # with all bytes in the vocabulary nothing is unknown
    "fuse_unk": None,
}
ADDED: dict[str, list[Any] | None] = {"single_word": [False], "lstrip": [False], "rstrip": [False]}
ADDED |= dict.fromkeys(["id", "content", "normalized", "special"])


def read_tokenizer(path: Path) -> tuple[dict[str, int], list[Merge], list[str]]:
    """Vocabulary, merges and special tokens of a byte-level BPE.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or asks for what is not implemented; the message names it.
    """
    content = read_json(path)
    _check(content, dict.fromkeys(["version", "added_tokens", "model", *PARTS]), str(path))
    for part, allowed in PARTS.items():
        given = content.get(part)
        if given is None and part != "pre_tokenizer":
            continue
        if allowed is None or not isinstance(given, dict):
            raise ValueError(f"{path}: {part}={_short(given)} is not implemented")
        if part == "post_processor" and given.get("type") == "TemplateProcessing" and given.get("special_tokens") == {}:
            continue  # a template without tokens to put in; transformers writes one
        _check(given, allowed, f"{path}: {part}")
    model: Any = content.get("model")
    for field, kind in (("vocab", dict), ("merges", list)):
        if not isinstance(model, dict) or not isinstance(model.get(field), kind):
            raise ValueError(f"{path}: model.{field} is missing")
    _check({"type": "BPE", **model}, MODEL, f"{path}: model")  # older files do not name it
    vocabulary = dict(model["vocab"])
    special = []
    for i, token in enumerate(content.get("added_tokens") or []):
        for field in ("content", "id"):
            if field not in token:
                raise ValueError(f"{path}: added_tokens.{i} has no {field}")
        name, number = token["content"], token["id"]
        _check(token, ADDED, f"{path}: added token {name!r}")
        if vocabulary.setdefault(name, number) != number:
            raise ValueError(f"{path}: {name!r} has the ids {vocabulary[name]} and {number}")
        special.append(name)
    merges = [_merge(entry, path) for entry in model["merges"]]
    return checked_vocabulary(vocabulary, str(path)), merges, special


def write_tokenizer(path: Path, vocabulary: Mapping[str, int], merges: Iterable[Merge], special: Sequence[str]) -> None:
    """Writes a byte-level BPE as tokenizer.json, with the words of GPT-2."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ordered = sorted(special, key=vocabulary.__getitem__)
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[name], "content": name, **plain} for name in ordered],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: item[1])),
            "merges": [list(merge) for merge in merges],
        },
    }
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")


def _check(given: Mapping[str, Any], allowed: Mapping[str, list[Any] | None], where: str) -> None:
    """What is given must be known, and have one of the values that are allowed (None: any)."""
    if "type" in allowed and "type" not in given:
        raise ValueError(f"{where}.type is missing")
    for name, values in allowed.items():
        if values is not None and name in given and given[name] not in values:
            raise ValueError(f"{where}.{name}={_short(given[name])} is not implemented")
    for name in given:
        if name not in allowed:
            raise ValueError(f"{where}.{name} is not known")


def _merge(entry: Any, path: Path) -> Merge:
    """A merge is a list of two pieces, or, in older files, the two with a space between."""
    parts = entry.split(" ") if isinstance(entry, str) else entry
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        raise ValueError(f"{path}: a merge is two pieces, got {_short(entry)}")
    return parts[0], parts[1]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + " …"
