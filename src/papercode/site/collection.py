"""The papers that the site covers: those with a note, and those of papers/listed.yaml that wait for one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from papercode.site.entry import Entry
from papercode.site.notes import FAMILIES, Note
from papercode.site.problem import Problem


@dataclass(frozen=True)
class Paper:
    """One paper of the collection.

    Attributes:
        key: its entry in references.bib.
        name: what people call it.
        family: one of FAMILIES.
        contribution: what it brought, in one line.
        builds_on: the keys of the papers it extends directly.
        entry: authors, title, year; None if references.bib lacks it.
        note: its note; None if it is only listed.
        imports: the keys of the papers whose modules its own modules import: the part of its lineage that is code.
        parity: whether a test holds one of its modules against an independent implementation.
        gpu: whether a test runs one of its modules on a GPU.
    """

    key: str
    name: str
    family: str
    contribution: str
    builds_on: tuple[str, ...]
    entry: Entry | None = None
    note: Note | None = field(default=None, repr=False)
    imports: frozenset[str] = frozenset()
    parity: bool = False
    gpu: bool = False

    @property
    def reviewed(self) -> bool:
        """Whether it has a note."""
        return self.note is not None

    @property
    def page(self) -> str:
        """Where it is told of, as MkDocs names sources: its note, or its place in the bibliography."""
        return f"papers/{self.note.name}.md" if self.note else f"bibliography.md#{self.key}"

    @property
    def published(self) -> tuple[int, int]:
        """Year and month of the first public version; what is unknown comes last."""
        return self.entry.published if self.entry else (9999, 0)


@dataclass(frozen=True)
class Listed:
    """papers/listed.yaml: the papers without a note, and what is wrong with the file."""

    records: Mapping[str, dict[str, Any]]
    problems: list[Problem]


def _line(text: str, key: str) -> int:
    return next((n for n, line in enumerate(text.split("\n"), 1) if line.startswith(f"{key}:")), 1)


def load_listed(path: Path) -> Listed:
    """Reads the list; a record that cannot be used is left out and reported. No file is an empty list."""
    if not path.is_file():
        return Listed({}, [])
    text = path.read_text("utf-8")
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return Listed(
            {}, [Problem(path, mark.line + 1 if mark else 1, f"not YAML: {getattr(error, 'problem', error)}")]
        )
    if not isinstance(found, dict):
        return Listed({}, [Problem(path, 1, f"must be one record a key, got {type(found).__name__}")])
    records, problems = {}, []
    for key, record in found.items():
        fault = _fault(record)
        if fault:
            problems.append(Problem(path, _line(text, key), f"{key}: {fault}"))
        else:
            records[key] = record
    return Listed(records, problems)


def _fault(record: Any) -> str | None:
    names = ("name", "family", "contribution", "builds_on")
    if not isinstance(record, dict) or set(record) != set(names):
        return f"a record has {', '.join(names)}, and nothing else"
    for name in names[:3]:
        if not isinstance(record[name], str) or not record[name].strip():
            return f"`{name}` must be a text, got {record[name]!r}"
    if record["family"] not in FAMILIES:
        return f"unknown family {record['family']!r}; families: {', '.join(FAMILIES)}"
    if not isinstance(record["builds_on"], list) or not all(isinstance(key, str) for key in record["builds_on"]):
        return f"`builds_on` must be a list of keys, got {record['builds_on']!r}"
    return None


def collect(
    notes: Iterable[Note],
    listed: Listed,
    entries: Mapping[str, Entry],
    imports: Callable[[Note], frozenset[str]],
    proofs: Mapping[str, set[str]],
) -> dict[str, Paper]:
    """Every paper by its key, the oldest first.

    Args:
        notes: the notes.
        listed: the papers without one.
        entries: the bibliography.
        imports: the keys of the papers whose modules a note's modules import.
        proofs: the modules that tests hold against a reference, as `parity`, and run on a GPU, as `gpu`.
    """
    papers = [
        Paper(
            note.key, note.title, note.family, note.contribution, tuple(note.builds_on), entries.get(note.key), note,
            imports(note), *(bool(proofs[proof].intersection(note.modules)) for proof in ("parity", "gpu")),
        )
        for note in notes if note.key
    ]  # fmt: skip
    known = {paper.key for paper in papers}
    papers += [
        Paper(key, r["name"], r["family"], r["contribution"], tuple(r["builds_on"]), entries.get(key))
        for key, r in listed.records.items()
        if key not in known
    ]
    return {paper.key: paper for paper in sorted(papers, key=lambda paper: (paper.published, paper.key))}


def listed_problems(
    listed: Listed, path: Path, notes: Mapping[str, Note], entries: Mapping[str, Entry]
) -> list[Problem]:
    """What is wrong with the list, seen beside the notes and the bibliography."""
    text = path.read_text("utf-8") if path.is_file() else ""
    found = list(listed.problems)
    for key, record in listed.records.items():
        line = _line(text, key)
        if key in notes:
            found.append(Problem(path, line, f"{key} has a note by now: delete its record here"))
        if key not in entries:
            found.append(Problem(path, line, f"{key} is not in references.bib"))
        found += [
            Problem(path, line, f"{key}: `builds_on` names {other}, which has neither a note nor a record here")
            for other in record["builds_on"]
            if other not in notes and other not in listed.records
        ]
    return found
