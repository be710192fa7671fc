"""The notes of papers/: their front matter, their headings, and where they stand."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from papercode.site.fences import without_fences
from papercode.site.problem import Problem

# from the ground up: a family imports from those above it, never from those below
FAMILIES = {
    "words": "Word vectors",
    "tokens": "Subword tokenizers",
    "recurrent": "Recurrent networks",
    "convolutional": "Convolutional networks",
    "attention": "Attention",
    "encoders": "Encoders",
    "decoders": "Decoders",
    "encoder_decoders": "Encoder-decoders",
    "crosslingual": "Cross-lingual models",
    "adaptation": "Adaptation",
    "compression": "Compression",
    "retrieval": "Retrieval and topics",
    "multimodal": "Vision and speech",
    "alignment": "Alignment",
    "analysis": "Analysis and surveys",
}

# the three-pass reading method
HEADINGS = (
    "## First pass — is it for me?",
    "### In one picture",
    "### Five Cs",
    "### Verdict",
    "## Second pass — what does it say?",
    "### Problem",
    "### Method",
    "### Evidence",
    "### References to follow",
    "## Third pass — rebuild it",
    "### Implementation",
    "### Numbers recomputed",
    "### Claim checked",
    "### Questions",
    "### Where it breaks, and ideas",
)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(_text(item) for item in value)


def _pairs(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(part) for pair in value.items() for part in pair)


def _seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


_REQUIRED = ("key", "module", "builds_on", "contribution")
# of each entry of the front matter what it must be, and whether it is
_ENTRIES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "key": ("the paper's key in references.bib", _text),
    "module": ("a dotted name, or a list of them", lambda value: _text(value) or _texts(value)),
    "builds_on": ("a list of keys, [] if there is none", _texts),
    "contribution": ("what the paper brought, in one sentence", _text),
    "terms": ("`English: Chinese` pairs of the terms it is known for", _pairs),
    "time_limit": ("a number of seconds above 0", _seconds),
    "reading": ("a text", _text),
    "tags": ("a list of texts", _texts),
    "search": ("`name: value` pairs", lambda value: isinstance(value, dict)),
}
_FRONT_MATTER = re.compile(r"---\n(.*?\n)?---\n", re.DOTALL)
_HEADING = re.compile(r"(#{1,3}) +(.+?)\s*#*\s*(?:\{[^}]*\})?\s*$")


@dataclass
class Note:
    """One paper's note.

    Attributes:
        path: the file.
        family: the folder it stands in, one of FAMILIES.
        text: the whole file; `body` is what follows the front matter.
        meta: the front matter.
        problems: what is wrong with front matter and headings.
    """

    path: Path
    family: str
    text: str
    meta: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def name(self) -> str:
        """`family/name`: the path that note, module and test share."""
        return f"{self.family}/{self.path.stem}"

    @property
    def key(self) -> str:
        """The paper's key in references.bib."""
        return self.meta.get("key", "")

    @property
    def modules(self) -> list[str]:
        """The dotted names of the modules the note is about, the main one first."""
        module = self.meta.get("module", [])
        return [module] if isinstance(module, str) else list(module)

    @property
    def builds_on(self) -> list[str]:
        """The keys of the papers this one extends directly."""
        return self.meta.get("builds_on", [])

    @property
    def contribution(self) -> str:
        """What the paper brought, in one sentence."""
        return " ".join(self.meta.get("contribution", "").split())

    @property
    def terms(self) -> dict[str, str]:
        """The terms that the paper is known for, English to Chinese."""
        return self.meta.get("terms", {})

    @functools.cached_property
    def title(self) -> str:
        """The name people use for the paper: the note's first heading."""
        return next((line[2:].strip() for line in body_lines(self.text) if line.startswith("# ")), self.path.stem)

    def line_of(self, word: str) -> int:
        """The first line that holds `word`; 1 if none does."""
        return next((n for n, line in enumerate(self.text.split("\n"), 1) if word in line), 1)


def load_note(path: Path) -> Note:
    """Reads a note; whatever is wrong with it ends up in its `problems`."""
    return _note(path, path.read_text("utf-8"))


@functools.lru_cache(maxsize=1024)  # while serving, every note is asked for on every save
def _note(path: Path, text: str) -> Note:
    note = Note(path, path.parent.name, text)
    note.meta = _front_matter(note)
    if note.family not in FAMILIES:
        note.problems.append(
            Problem(path, 1, f"unknown family {note.family!r}: move it to one of {', '.join(FAMILIES)}")
        )
    _check_headings(note)
    return note


def front_matter(text: str) -> tuple[dict[str, Any], int]:
    """The YAML between the first two `---` lines of `text`, and how many lines it takes.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: it is YAML but not a mapping.
    """
    found = _FRONT_MATTER.match(text)
    if not found:
        return {}, 0
    meta = yaml.safe_load(found[1] or "") or {}
    if not isinstance(meta, dict):
        raise ValueError(f"front matter must be `name: value` lines, got {type(meta).__name__}")
    return meta, found[0].count("\n")


def body_lines(text: str) -> list[str]:
    """The lines of `text`, with those of front matter and fences blank."""
    found = _FRONT_MATTER.match(text)
    skipped = found[0].count("\n") if found else 0
    return [""] * skipped + without_fences(text).split("\n")[skipped:]


def _front_matter(note: Note) -> dict[str, Any]:
    def problem(line: int, message: str) -> None:
        note.problems.append(Problem(note.path, line, message))

    try:
        meta, lines = front_matter(note.text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem(mark.line + 2 if mark else 1, f"front matter is not YAML: {getattr(error, 'problem', error)}")
        return {}
    except ValueError as error:
        problem(1, str(error))
        return {}
    if not lines:
        problem(1, "front matter is missing: begin with `---`, `key:`, `module:` and `builds_on:` lines, `---`")
    for name in _REQUIRED:
        if lines and name not in meta:
            problem(1, f"front matter lacks `{name}:`, which is {_ENTRIES[name][0]}")
    good = {}
    for name, value in meta.items():
        if name not in _ENTRIES:
            problem(
                note.line_of(f"{name}:"),
                f"front matter has an unknown entry `{name}`; known are {', '.join(_ENTRIES)}",
            )
        elif not _ENTRIES[name][1](value):
            problem(note.line_of(f"{name}:"), f"front matter `{name}` must be {_ENTRIES[name][0]}; got {value!r}")
        else:
            good[name] = value
    return good


def _check_headings(note: Note) -> None:
    found = [
        (number, f"{match[1]} {match[2]}")
        for number, line in enumerate(body_lines(note.text), 1)
        if (match := _HEADING.match(line))
    ]
    names = [(n, h) for n, h in found if h.startswith("# ")]
    if len(names) != 1:
        line = names[1][0] if names else 1
        note.problems.append(Problem(note.path, line, f"a note has one `# Name` heading, this one has {len(names)}"))
    position = 0
    first: dict[str, int] = {}
    for number, heading in found:
        if heading.startswith("# "):
            continue
        if heading not in HEADINGS:
            message = (
                f"unknown heading `{heading}`; own headings start at level 4; CONTRIBUTING.md lists the template's"
            )
            note.problems.append(Problem(note.path, number, message))
        elif first.setdefault(heading, number) != number:
            message = f"heading `{heading}` stands already on line {first[heading]}"
            note.problems.append(Problem(note.path, number, message))
        elif HEADINGS.index(heading) < position:
            note.problems.append(Problem(note.path, number, f"heading `{heading}` is out of order"))
        else:
            position = HEADINGS.index(heading)
    last = note.text.rstrip("\n").count("\n") + 1
    for heading in HEADINGS:
        if heading not in first:
            note.problems.append(Problem(note.path, last, f"missing heading `{heading}`"))
    _check_empty(note, found)


def _check_empty(note: Note, found: list[tuple[int, str]]) -> None:
    lines = note.text.split("\n")
    for (number, heading), (end, after) in zip(found, [*found[1:], (len(lines) + 1, "#")], strict=True):
        deeper = after.split(" ")[0] > heading.split(" ")[0]
        if not deeper and not any(line.strip() for line in lines[number : end - 1]):
            note.problems.append(Problem(note.path, number, f"nothing stands under `{heading}`"))
