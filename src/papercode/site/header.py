"""The block under a note's title: who wrote the paper, where to get it, where its code is."""

import re
from pathlib import PurePosixPath

from papercode.site.entry import Entry
from papercode.site.notes import Note, body_lines
from papercode.site.project import Project

_MATH = re.compile(r"(\$[^$\s](?:[^$]*[^$\s])?\$)")
_SPECIAL = re.compile(r"[\\`*_\[\]<>&@!|]")
_NO_LETTER = re.compile(r"[^A-Za-z0-9 ,.=]")


def page_of(note: Note) -> str:
    """The page of a note, as MkDocs names sources."""
    return f"papers/{note.name}.md"


def api_page_of(module: str) -> str:
    """The generated page of a module; `papercode.attention.transformer` is at api/attention/transformer.md."""
    _, *parts = module.split(".")
    return "/".join(["api", *parts]) + ".md" if parts else "api/index.md"


def relative(target: str, page: str) -> str:
    """A link from the source `page` to the source `target`, both from the root of the site."""
    here = PurePosixPath(page).parent
    up = 0
    while not PurePosixPath(target).is_relative_to(here):
        here, up = here.parent, up + 1
    return "../" * up + str(PurePosixPath(target).relative_to(here))


def header(note: Note, project: Project, repository: str) -> str:
    """The Markdown to put under the title of `note`; empty if references.bib does not know its key.

    Args:
        note: the note.
        project: the bibliography and the other notes.
        repository: where the files of the project can be read, ending in a slash; "" leaves those links out.
    """
    entry = project.bibliography.get(note.key)
    if not entry:
        return ""
    page = page_of(note)
    links = [f"[{name}]({url})" for name, url in entry.links]
    links.append(f"[Bibliography]({relative('bibliography.md', page)}#{note.key})")
    code = [f"[`{_short(module, note)}`]({relative(api_page_of(module), page)})" for module in note.modules]
    if repository:
        folder, name = note.name.split("/")
        for label, file in (("source", f"src/papercode/{note.name}.py"), ("tests", f"tests/{folder}/test_{name}.py")):
            if (project.root / file).is_file():
                code.append(f"[{label}]({repository}{file})")
    rows = [
        ("Paper", f"*{plain(entry.title)}*"),
        ("Authors", plain(", ".join(entry.author_names))),
        ("Published", plain(", ".join(filter(None, [entry.source, str(entry.year)])))),
        ("Links", " · ".join(links)),
        ("Code", " · ".join(code)),
        ("Terms", " · ".join(f'{plain(term)} <span lang="zh">{plain(zh)}</span>' for term, zh in note.terms.items())),
    ]
    lines = [f'<dt>{name}</dt>\n<dd markdown="span">{value}</dd>' for name, value in rows if value]
    cite = f'??? cite "BibTeX `{entry.key}`"\n\n    ```bibtex\n{_indent(entry.bibtex)}\n    ```\n'
    return (
        '<dl class="paper-header" markdown="1">\n'
        + "\n".join(lines)
        + f"\n</dl>\n\n{_take_away(note, entry)}\n\n{cite}"
    )


def _take_away(note: Note, entry: Entry) -> str:
    """The notebook to download, and a button that copies the BibTeX; Material's script copies what the button names."""
    file = f"{note.path.stem}.ipynb"
    bibtex = _NO_LETTER.sub(lambda match: f"&#{ord(match[0])};", entry.bibtex)
    return (
        f'<p class="take-away" markdown="span" data-search-exclude>[Notebook]({file}){{ download="{file}" }} '
        f'<button type="button" data-clipboard-text="{bibtex}">Cite</button></p>'
    )


def _short(module: str, note: Note) -> str:
    """The full name of a note's main module; of the others what differs from it."""
    package, _, name = module.rpartition(".")
    main = note.modules[0]
    return name if module != main and main.startswith(f"{package}.") else module


def insert_header(text: str, block: str) -> str:
    """`text` with `block` under its first heading."""
    lines = text.split("\n")
    title = next((n for n, line in enumerate(body_lines(text)) if line.startswith("# ")), None)
    if title is None or not block:
        return text
    return "\n".join([*lines[: title + 1], "", block, *lines[title + 1 :]])


def plain(text: str) -> str:
    """Text that Markdown is to leave as it is; TeX between dollars stays TeX."""
    parts = _MATH.split(text)
    parts[::2] = [_SPECIAL.sub(lambda match: f"&#{ord(match[0])};", part) for part in parts[::2]]
    return "".join(parts)


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())
