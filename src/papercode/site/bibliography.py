r"""`references.bib` as Python objects: the only place where authors, years and venues are typed.

`load_bibliography` reads the file with bibtexparser, decodes LaTeX accents (`{\"u}` is ü), drops the braces that
protect capitals and keeps `$math$`. It never raises because of what the file says: whatever an author should mend is a
`Problem` in `Bibliography.problems`, and every entry that can be shown is in the mapping.
"""

import functools
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import bibtexparser
from bibtexparser import model
from bibtexparser.middlewares import default_parse_stack
from bibtexparser.middlewares.names import InvalidNameError, parse_single_name_into_parts, split_multiple_persons_names
from pylatexenc.latex2text import LatexNodes2Text

from papercode.site.entry import KEY, Entry, arxiv_month, arxiv_number, bare_doi, month_number, web_host
from papercode.site.problem import Problem

__all__ = ["KEY", "Bibliography", "Entry", "load_bibliography"]

_VENUES = ("journal", "booktitle", "howpublished", "school", "institution", "publisher")
_VERBATIM = {"url", "doi", "eprint"}
_TO_TEXT = LatexNodes2Text(math_mode="verbatim")


class Bibliography(Mapping[str, Entry]):
    """The entries by key, in the order of the file, and the problems met while reading it.

    Entries that would be cited alike get letters after the year, the oldest first: Liu et al. (2019a), (2019b) …
    """

    def __init__(self, entries: Mapping[str, Entry], problems: list[Problem] | None = None) -> None:
        alike: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries.values():
            alike[entry.label].append(entry)
        suffixes: dict[str, str] = {}
        for group in alike.values():
            if len(group) > 1:
                for number, entry in enumerate(sorted(group, key=lambda e: (e.published, e.key))):
                    suffixes[entry.key] = _letters(number)
        self._entries = {key: replace(entry, suffix=suffixes.get(key, "")) for key, entry in entries.items()}
        self.problems = sorted(problems or [])

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def load_bibliography(path: Path) -> Bibliography:
    """Reads a BibTeX file.

    Args:
        path: The file, in UTF-8.

    Returns:
        Every entry that can be shown, and in `.problems` what an author should mend.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: there is no bibliography here; create the file (BibTeX in UTF-8) or correct the path"
        ) from None
    return _read(path, raw)


@functools.lru_cache(maxsize=4)  # while serving, the same file is asked for on every save
def _read(path: Path, raw: bytes) -> Bibliography:
    problems = []
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.append(Problem(path, line, f"byte {raw[error.start]:#04x} is not UTF-8: save the file in UTF-8"))
        text = raw.decode(errors="replace")
    with _silence("bibtexparser"):
        library = bibtexparser.parse_string(text.replace("\r\n", "\n"))
    blocks = list(library.entries)
    for failed in library.failed_blocks:
        problems.append(Problem(path, _line(failed), _why(failed)))
        if isinstance(failed, model.DuplicateFieldKeyBlock) and isinstance(failed.ignore_error_block, model.Entry):
            blocks += _parsed(failed.ignore_error_block)
    entries: dict[str, Entry] = {}
    for block in sorted(blocks, key=_line):
        entry, found = _entry(path, block)
        problems += found
        if entry.key in entries:
            problems.append(Problem(path, entry.line, _used_twice(entry.key, entries[entry.key].line)))
        entries.setdefault(entry.key, entry)
    return Bibliography(entries, problems)


def _entry(path: Path, block: model.Entry) -> tuple[Entry, list[Problem]]:
    raw = {f.key.lower(): str(f.value) for f in block.fields}
    lines = {f.key.lower(): f.start_line + 1 for f in block.fields}
    fields = {name: _plain(value, verbatim=name in _VERBATIM) for name, value in raw.items()}
    problems: list[Problem] = []

    def report(message: str, name: str = "") -> None:
        problems.append(Problem(path, lines.get(name, _line(block)), f"{block.key}: {message}"))

    def check(name: str, good: bool, must_be: str) -> None:
        if fields.get(name) and not good:
            report(f"{name} {fields.pop(name)!r} is no {must_be}", name)

    if not re.fullmatch(KEY, block.key):
        report(f"the key {block.key!r} cannot be cited: a letter first, then letters, digits, _, - and : only")
    for f in block.fields:
        if f.enclosing == "no-enclosing" and f.key.lower() != "month":
            report(f"{f.key} = {f.value}: no such @string is defined above; put the value in braces", f.key.lower())
    check("year", bool(re.fullmatch(r"\d{4}", fields.get("year", ""))), "year of four digits")
    check("month", month_number(fields.get("month", "")) is not None, "month: write jan, feb … or 1 to 12")
    number = arxiv_number(fields)
    check("eprint", not number or arxiv_month(number) is not None, "arXiv number such as 1706.03762 or cs/0112017")
    check("doi", bool(re.fullmatch(r"10\.\d+/\S+", bare_doi(fields))), "DOI such as 10.1162/neco.1997.9.8.1735")
    check("url", bool(web_host(fields.get("url", ""))), "address that starts with https://")
    people = "author" if fields.get("author") else "editor"
    names, unreadable = _names(raw.get(people, ""))
    for name in unreadable:
        report(f"{people} {name!r} cannot be read: write `Last, First` or `First Last`", people)
    for name in ("title", "year"):
        if not raw.get(name, "").strip():
            report(f"the entry has no {name}: add it")
    if not fields.get(people):
        report("the entry has no author (and no editor): add one")
    eprint = arxiv_number(fields)
    entry = Entry(
        key=block.key,
        type=block.entry_type.lower(),
        title=fields.get("title", ""),
        authors=tuple(name for name in names if name != ("", "others")),
        year=int(fields.get("year") or 0),
        venue=next((fields[name] for name in _VENUES if fields.get(name)), f"arXiv:{eprint}" if eprint else ""),
        fields=fields,
        line=_line(block),
        bibtex=(block.raw or "").strip(),
        et_al=("", "others") in names,
    )
    return entry, problems


def _names(people: str) -> tuple[list[tuple[str, str]], list[str]]:
    """(first, last) of each person, and the names that cannot be read."""
    names, unreadable = [], []
    for person in split_multiple_persons_names(people):
        try:
            parts = parse_single_name_into_parts(person)
        except InvalidNameError:
            unreadable.append(person)
            continue
        names.append((_plain(" ".join(parts.first)), _plain(" ".join([*parts.von, *parts.last, *parts.jr]))))
    return names, unreadable


def _plain(value: str, *, verbatim: bool = False) -> str:
    """A field's value without its LaTeX; addresses and numbers (`verbatim`) only lose backslashes."""
    if verbatim:
        return re.sub(r"\\([_%&#~])", r"\1", value).strip()
    value = re.sub(r"(?<!\\)([%&])", r"\\\1", value)  # bare, they would start a comment or a column and vanish
    with _silence("pylatexenc"):
        return " ".join(_TO_TEXT.latex_to_text(value).split())


def _why(failed: model.ParsingFailedBlock) -> str:
    """What to tell the author about a block that bibtexparser refused."""
    match failed:
        case model.DuplicateBlockKeyBlock():
            return _used_twice(failed.key, _line(failed.previous_block))
        case model.DuplicateFieldKeyBlock():
            return f"the entry gives {', '.join(sorted(failed.duplicate_keys))} more than once: keep one"
        case _:
            reason = getattr(failed.error, "abort_reason", "") or str(failed.error)
            return f"this entry cannot be read; look for a missing brace, comma or `=` ({' '.join(reason.split())})"


def _used_twice(key: str, line: int) -> str:
    return f"{key}: the key is already used on line {line}; remove one of the two entries or rename it"


def _parsed(block: model.Entry) -> list[model.Entry]:
    """An entry that bibtexparser set aside before it had taken the braces off its values."""
    library = bibtexparser.Library([block])
    for step in default_parse_stack():
        library = step.transform(library)
    return library.entries


def _line(block: model.Block) -> int:
    return (block.start_line or 0) + 1


def _letters(number: int) -> str:
    """0 is a, 25 is z, 26 is aa …"""
    return (_letters(number // 26 - 1) if number > 25 else "") + chr(ord("a") + number % 26)


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """Keeps a library from logging what becomes a `Problem` here."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
