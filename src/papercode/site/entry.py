"""One paper of the bibliography: how it is cited, where it can be read, and when it first appeared."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

KEY = r"[A-Za-z](?:[A-Za-z0-9_:-]*[A-Za-z0-9])?"
"""The keys that can be cited, as a regular expression."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ARXIV = re.compile(r"(?:(\d\d)(\d\d)\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/(\d\d)(\d\d)\d{3})(?:v\d+)?")
_SITES = {
    "aclanthology.org": "ACL Anthology",
    "openreview.net": "OpenReview",
    "proceedings.mlr.press": "PMLR",
    "proceedings.neurips.cc": "NeurIPS",
    "papers.nips.cc": "NeurIPS",
    "jmlr.org": "JMLR",
    "ijcai.org": "IJCAI",
    "cdn.openai.com": "OpenAI",
}
_AUTHORS_IN_REFERENCE = 10


@dataclass(frozen=True)
class Entry:
    """One paper.

    Args:
        key: The citation key, `vaswani2017attention`.
        type: The BibTeX type in small letters, `article`.
        title: The title as plain text; `$math$` is left as it is.
        authors: (first names, last name with its particle) of each author, or of each editor if there are no authors.
        year: The year of publication, 0 if the file does not say.
        venue: Journal, proceedings, school … or the arXiv number; empty if none is known.
        fields: Every field of the entry as plain text, by its name in small letters.
        line: The line of the file on which the entry starts, from 1.
        bibtex: The entry as it was typed.
        et_al: Whether the author list ends in "and others".
        suffix: The letter that tells apart entries which would be cited alike: the a of 2019a.
    """

    key: str
    type: str
    title: str
    authors: tuple[tuple[str, str], ...]
    year: int
    venue: str
    fields: Mapping[str, str] = field(repr=False, hash=False)
    line: int
    bibtex: str = field(repr=False)
    et_al: bool = False
    suffix: str = ""

    @property
    def cited_authors(self) -> str:
        """The authors as a sentence names them: `Vaswani et al.`, `Li and Liang`; the key if there are none."""
        names = [last for _, last in self.authors]
        if not names:
            return self.key
        return f"{names[0]} et al." if self.et_al or len(names) > 2 else " and ".join(names)

    @property
    def cited_year(self) -> str:
        """The year with its letter, `2019a`; `n.d.` if there is none."""
        return f"{self.year or 'n.d.'}{self.suffix}"

    @property
    def label(self) -> str:
        """How running text cites the entry: `Vaswani et al. (2017)`."""
        return f"{self.cited_authors} ({self.cited_year})"

    @property
    def parenthetical(self) -> str:
        """How a parenthesis cites the entry, without the parenthesis itself: `Vaswani et al., 2017`."""
        return f"{self.cited_authors}, {self.cited_year}"

    @property
    def author_names(self) -> tuple[str, ...]:
        """The authors' full names, first name first; `others` is the last one where the list is cut off."""
        names = [f"{first} {last}".strip() for first, last in self.authors]
        return (*names, "others") if self.et_al else tuple(names)

    @property
    def source(self) -> str:
        """Where it appeared: the venue with volume, number and pages."""
        volume, number, pages = (self.fields.get(name, "") for name in ("volume", "number", "pages"))
        text = self.venue
        if self.type == "article" and volume:
            text += f" {volume}({number})" if number else f" {volume}"
        if pages:
            text += f", {'pages' if re.search('[,–-]', pages) else 'page'} {pages}"
        return text

    @property
    def reference(self) -> str:
        """The full reference as plain text, for a tooltip; of more than twelve authors it names the first ten."""
        names = self.author_names
        if len(names) > _AUTHORS_IN_REFERENCE + 2:
            names = (*names[:_AUTHORS_IN_REFERENCE], f"{len(names) - _AUTHORS_IN_REFERENCE} others")
        authors = " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
        parts = [f"{authors} ({self.cited_year})".strip(), self.title, self.source]
        return " ".join(part if part[-1] in ".?!" else f"{part}." for part in parts if part)

    @property
    def arxiv(self) -> str | None:
        """The arXiv number, `1706.03762` or `cs/0112017`, without its version; None if the entry has none."""
        eprint = arxiv_number(self.fields)
        return re.sub(r"v\d+$", "", eprint) if eprint and arxiv_month(eprint) else None

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """(name, address) of each place where the paper can be read: arXiv, DOI, and the site that `url` leads to."""
        doi, url = bare_doi(self.fields), self.fields.get("url", "")
        links = [("arXiv", f"https://arxiv.org/abs/{self.arxiv}")] if self.arxiv else []
        if doi:
            links.append(("DOI", f"https://doi.org/{quote(doi, safe='/:;()')}"))
        host = web_host(url)
        told_already = {
            name for name, known in (("arxiv.org", self.arxiv), ("doi.org", doi), ("dx.doi.org", doi)) if known
        }
        if host and host not in told_already:
            links.append((_SITES.get(host, host), url))
        return tuple(links)

    @property
    def published(self) -> tuple[int, int]:
        """(year, month) of the first public version; month 0 if it is not known.

        The arXiv number tells it, unless the year of publication is earlier still: then the preprint came afterwards.
        """
        first = arxiv_month(arxiv_number(self.fields))
        if first is None or 0 < self.year < first[0]:
            return self.year, month_number(self.fields.get("month", "")) or 0
        return first


def arxiv_number(fields: Mapping[str, str]) -> str:
    """The `eprint` field without an `arXiv:` before it; empty if it belongs to another archive or there is none."""
    if fields.get("archiveprefix", "arXiv").lower() != "arxiv":
        return ""
    return re.sub(r"^arxiv:", "", fields.get("eprint", ""), flags=re.I)


def arxiv_month(number: str) -> tuple[int, int] | None:
    """(year, month) in which the arXiv gave out a number, of the old or the new style; None if it is no such number."""
    match = _ARXIV.fullmatch(number)
    if not match:
        return None
    year, month = (int(part) for part in match.groups() if part is not None)
    century = 1900 if year > 90 else 2000  # the arXiv began in 1991, numbers with a dot in 2007
    return (century + year, month) if 1 <= month <= 12 else None


def bare_doi(fields: Mapping[str, str]) -> str:
    """The `doi` field without the address of a resolver before it; empty if there is none."""
    return re.sub(r"^(?:https?://(?:dx\.)?doi\.org/|doi:)", "", fields.get("doi", ""), flags=re.I)


def web_host(url: str) -> str:
    """The host of an http(s) address without `www.`; empty if it is no such address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return (parts.hostname or "").removeprefix("www.") if parts.scheme in ("http", "https") and " " not in url else ""


def month_number(month: str) -> int | None:
    """1 to 12 for `3`, `mar` or `March`; None for anything else."""
    if month.isdecimal():
        return int(month) if 1 <= int(month) <= 12 else None
    return _MONTHS.index(month.lower()[:3]) + 1 if month.lower()[:3] in _MONTHS else None
