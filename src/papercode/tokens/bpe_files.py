r"""The files of a tokenizer: vocab.json, the id of every piece, and merges.txt, a merge a line [@sennrich2016neural].

Imports: nothing from an older paper's module.

This is the layout in which the tokenizers of GPT and GPT-2 were released.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from papercode.checkpoints.config import read_json

VOCABULARY, MERGES = "vocab.json", "merges.txt"


def read_vocabulary(path: Path) -> dict[str, int]:
    """vocab.json: the id of every piece.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not an object of distinct whole numbers from 0.
    """
    return checked_vocabulary(read_json(path), str(path))


def checked_vocabulary(vocabulary: Mapping[str, int], name: str) -> dict[str, int]:
    """A copy of the vocabulary.

    Raises:
        ValueError: If an id is not a whole number from 0, or two pieces share one.
    """
    owner: dict[int, str] = {}
    for piece, i in vocabulary.items():
        if type(i) is not int or i < 0:
            raise ValueError(f"{name}: the id of {piece!r} must be a whole number from 0, got {i!r}")
        if owner.setdefault(i, piece) != piece:
            raise ValueError(f"{name}: {owner[i]!r} and {piece!r} have the same id {i}")
    return dict(vocabulary)


def read_merges(path: Path) -> list[tuple[str, str]]:
    """merges.txt: two pieces a line, the first learned first. A first line `#version: …` is skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not two pieces with one space between, or the file is not UTF-8.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error
    if lines[-1] == "":
        lines.pop()
    merges = []
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith("#version"):
            continue
        parts = line.removesuffix("\r").split(" ")
        if len(parts) != 2 or not all(parts):
            raise ValueError(f"{path}:{number}: a merge is two pieces with a space between, got {line!r}")
        merges.append((parts[0], parts[1]))
    return merges


def write_files(folder: Path, vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]) -> None:
    """Writes vocab.json and merges.txt into a folder, which is made if need be.

    Raises:
        ValueError: If a piece holds a space or a line break, which merges.txt cannot.
    """
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    for line in lines[1:]:
        if line.count(" ") != 1 or "\n" in line or "\r" in line:
            raise ValueError(f"{MERGES} cannot hold the merge {line!r}: a piece has a space or a line break in it")
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY).write_text(json.dumps(ordered, ensure_ascii=False), "utf-8")
    (folder / MERGES).write_bytes("\n".join([*lines, ""]).encode())
