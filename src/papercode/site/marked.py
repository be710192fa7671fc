"""What authors mark in a note by admonitions: findings, common mistakes, readers' questions."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown.extensions.toc import slugify

from papercode.site.notes import body_lines
from papercode.site.problem import Problem

KINDS = ("finding", "mistake", "question")

_OPENING = re.compile(rf"(?P<indent> *)(?:!!!|\?\?\?\+?) *(?P<kind>{'|'.join(KINDS)})\b(?P<rest>.*)$")
_TITLE = re.compile(r'"(.*)" *$')
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"[\s|:-]+$")
_LONGEST = 60  # characters of a title in an address


@dataclass(frozen=True)
class Numbers:
    """What a paper says beside what we get, as Markdown; `what` and `why` may be empty."""

    what: str
    paper: str
    here: str
    why: str


@dataclass(frozen=True)
class Marked:
    """One marked admonition.

    Attributes:
        kind: one of KINDS.
        title: its title, as Markdown.
        body: what is indented below it, as Markdown that starts at the margin.
        line: where it begins, from 1.
        anchor: its address on the note's page.
    """

    kind: str
    title: str
    body: str
    line: int
    anchor: str

    @property
    def numbers(self) -> list[Numbers]:
        """The rows of the first table in the body that has the columns *The paper* and *Here*."""
        names: list[str] | None = None
        rows = []
        for line in body_lines(self.body):
            cells = [cell.strip() for cell in _CELL_BORDER.split(line.strip().strip("|"))] if "|" in line else []
            if names is None:
                lower = [cell.lower() for cell in cells]
                names = lower if {"the paper", "here"} <= set(lower) else None
            elif not cells:
                break
            elif not _RULE.match(line):
                row = dict(zip(names, cells, strict=False))
                rows.append(Numbers(row.get("what", ""), row["the paper"], row.get("here", ""), row.get("why", "")))
        return rows


def marked(text: str) -> list[Marked]:
    """What is marked in a note, from top to bottom; what stands in fences is code."""
    whole = text.split("\n")
    found: list[Marked] = []
    taken: set[str] = set()
    for number, line in enumerate(body_lines(text)):
        if opening := _OPENING.match(line):
            margin = " " * (len(opening["indent"]) + 4)
            quoted = _TITLE.search(opening["rest"])
            title = quoted[1].strip() if quoted else ""
            anchor = _anchor(opening["kind"], title, taken)
            found.append(Marked(opening["kind"], title, _body(whole[number + 1 :], margin), number + 1, anchor))
    return found


def _body(lines: list[str], margin: str) -> str:
    body = []
    for line in lines:
        if line.strip() and not line.startswith(margin):
            break
        body.append(line.removeprefix(margin) if line.strip() else "")
    return "\n".join(body).strip("\n")


def _anchor(kind: str, title: str, taken: set[str]) -> str:
    words = slugify(title, "-")
    if len(words) > _LONGEST:
        words = words[: _LONGEST + 1].rpartition("-")[0] or words[:_LONGEST]
    anchor = stem = f"{kind}-{words}".rstrip("-")
    number = 1
    while anchor in taken:
        number += 1
        anchor = f"{stem}-{number}"
    taken.add(anchor)
    return anchor


def with_anchors(text: str) -> str:
    """`text` with an address in the title of each admonition that is marked: what is folded opens if one goes there."""
    lines = text.split("\n")
    for item in marked(text):
        if item.title:
            line = lines[item.line - 1]
            lines[item.line - 1] = line.replace('"', f'"<span id="{item.anchor}"></span>', 1)
    return "\n".join(lines)


def marked_problems(path: object, text: str) -> Iterator[Problem]:
    """The marked admonitions that lack a title or say nothing."""
    for item in marked(text):
        if not item.title:
            message = f'this {item.kind} needs a title in quotes, as in `!!! {item.kind} "What it is"`'
            yield Problem(path, item.line, message)  # type: ignore[arg-type]
        if not item.body:
            message = f"this {item.kind} says nothing: indent what belongs to it by four spaces more than its title"
            yield Problem(path, item.line, message)  # type: ignore[arg-type]
