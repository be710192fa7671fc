"""Files of dialogues, read and written one dialogue at a time; LCCC's own forms [@wang2020large] among them.

* JSON lines: on each line a list of turns, or an object that has one as `dialog`, `dialogue` or `turns`.
* JSON: one list of such lists or objects.
* Tab-separated: on each line the turns of a dialogue.

`.gz` at the end of a name stands for a compressed file of any of them.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

_BETWEEN = re.compile(r"[\s,]*")
KEYS = ("dialog", "dialogue", "turns")
"""Under which an object may hold its turns."""


class BadInputError(ValueError):
    """Something in a file is no dialogue.

    Args:
        path: The file.
        line: Where, from 1.
        message: What is wrong.
        text: What stands there.
    """

    def __init__(self, path: Path, line: int, message: str, text: str = ""):
        super().__init__(f"{path}, line {line}: {message}")
        self.line, self.text = line, text


def read_dialogues(
    path: Path, bad: Callable[[BadInputError], None] | None = None, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[int, list[str], dict[str, Any]]]:
    """The dialogues of a file, whose form is told by its first sign.

    Args:
        path: The file.
        bad: Called with what is wrong with a line, which is then left out; without it the first such line is raised.
        progress: Called now and then with the bytes of the file that have been read since.

    Yields:
        The number of the line, the turns, and the object that held them (empty if none did).

    Raises:
        BadInputError: If a line is no dialogue, or not in UTF-8.
    """
    with path.open("rb") as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
        form: Callable[..., Any] | None = None
        lines = _lines(path, file, raw, progress)
        for number, line in lines:
            try:
                if isinstance(line, BadInputError):
                    raise line
                if not line.strip():
                    continue
                form = form or _form(line)
                if form is _whole:
                    yield from _whole(path, number, line, lines, bad)
                    break
                turns, record = form(path, number, line)
            except BadInputError as error:
                if bad is None or form is _whole:
                    raise
                bad(error)
                continue
            yield number, turns, record


def _lines(
    path: Path, file: Any, raw: IO[bytes], progress: Callable[[int], None] | None
) -> Iterator[tuple[int, "str | BadInputError"]]:
    """Numbered lines; in place of one that cannot be decoded, what is wrong with it."""
    number, told = 0, 0
    while True:
        number += 1
        try:
            line = file.readline()
        except (OSError, EOFError) as error:  # a compressed file that ends too early, or is none
            raise BadInputError(path, number, f"cannot be read ({error})") from error
        if progress is not None and (number % 256 == 0 or not line):
            progress(raw.tell() - told)
            told = raw.tell()
        if not line:
            return
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            yield number, BadInputError(path, number, f"is not in UTF-8 (byte {error.start + 1})", text)


def _form(first: str) -> Callable[..., Any]:
    text = first.lstrip()
    if text[0] == "{":
        return _json_line
    if text[0] != "[":
        return _tab_line
    return _json_line if text[1:].lstrip()[:1] == '"' else _whole


def _tab_line(path: Path, number: int, line: str) -> tuple[list[str], dict[str, Any]]:
    return [turn.strip() for turn in line.split("\t")], {}


def _json_line(path: Path, number: int, line: str) -> tuple[list[str], dict[str, Any]]:
    try:
        held = json.loads(line)
    except ValueError as error:
        raise BadInputError(path, number, f"is no JSON ({error})", line) from error
    return _turns(path, number, held, line)


def _turns(path: Path, number: int, held: object, text: str) -> tuple[list[str], dict[str, Any]]:
    record: dict[str, Any] = held if isinstance(held, dict) else {}
    if isinstance(held, dict):
        key = next((key for key in KEYS if key in held), None)
        if key is None:
            raise BadInputError(path, number, f"is an object without {', '.join(KEYS[:-1])} or {KEYS[-1]}", text)
        held = held[key]
    if not isinstance(held, list) or not all(isinstance(turn, str) for turn in held):
        raise BadInputError(path, number, "is no list of texts, which a dialogue is", text)
    return held, record


def _whole(
    path: Path, number: int, line: str, lines: Iterator[tuple[int, "str | BadInputError"]], bad: Any
) -> Iterator[tuple[int, list[str], dict[str, Any]]]:
    """A list of dialogues over any number of lines, decoded one at a time."""
    decoder, buffer, at, here = json.JSONDecoder(), line, line.index("[") + 1, number

    def more() -> bool:
        nonlocal buffer, at, number
        following = next(lines, None)
        if following is None:
            return False
        if isinstance(following[1], BadInputError):
            raise following[1]
        number, text = following
        buffer, at = f"{buffer[at:]}\n{text}", 0
        return True

    while True:
        start = _BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]
        here, at = here + buffer.count("\n", at, start), start
        if at == len(buffer):
            if not more():
                raise BadInputError(path, here, "the list that begins the file is not closed")
            continue
        if buffer[at] == "]":
            at += 1
            while not buffer[at:].strip():
                if not more():
                    return
            raise BadInputError(path, number, "something follows the list that begins the file", buffer[at:].strip())
        try:
            held, stop = decoder.raw_decode(buffer, at)
        except json.JSONDecodeError as error:
            if not buffer[error.pos :].strip() and more():
                continue
            where = here + buffer.count("\n", at, error.pos)
            raise BadInputError(path, where, f"is no JSON ({error.msg})", buffer[at : at + 200]) from error
        text, at = buffer[at:stop], stop
        try:
            turns, record = _turns(path, here, held, text)
        except BadInputError as error:
            if bad is None:
                raise
            bad(error)
        else:
            yield here, turns, record
        here += text.count("\n")


class Writer:
    """Writes dialogues to a file, which appears under its name when all is written; a context manager.

    Args:
        path: `.tsv` and `.txt` are tab-separated, `.json` is one list, everything else JSON lines; `.gz` as well.
    """

    def __init__(self, path: Path):
        self.path, self._part = path, path.with_name(path.name + ".part")
        names = path.suffixes[:-1] if path.suffix == ".gz" else path.suffixes
        self._form = names[-1].lower() if names else ""
        self._count = 0

    def __enter__(self) -> "Writer":
        opener: Any = gzip.open if self.path.suffix == ".gz" else open
        self._file: IO[str] = opener(self._part, "wt", encoding="utf-8", newline="\n")
        return self

    def write(self, dialogue: Sequence[str] | dict[str, Any]) -> None:
        """One dialogue more, or an object in place of one."""
        text = json.dumps(dialogue, ensure_ascii=False)
        if self._form in (".tsv", ".txt") and not isinstance(dialogue, dict):
            text = "\t".join(" ".join(turn.split()) for turn in dialogue)
        if self._form == ".json":
            text = (",\n" if self._count else "[\n") + text
        self._count += 1
        self._file.write(text if self._form == ".json" else text + "\n")

    def __exit__(self, kind: Any, *error: Any) -> None:
        with self._file:
            if self._form == ".json":
                self._file.write("\n]\n" if self._count else "[]\n")
        if kind is None:
            self._part.replace(self.path)
        else:
            self._part.unlink()
