"""The references as one script, which pages load when a citation is first opened in place."""

import json
from collections.abc import Mapping

from papercode.site.project import Project

FILE = "assets/references.js"

# what the card says, for the script that shows it knows no language
_WORDS = {
    "note": "Note on {}",
    "copy": "Copy BibTeX",
    "copied": "Copied",
    "bibliography": "In the bibliography",
    "reference": "Reference",
    "footnote": "Footnote {}",
    "close": "Close",
    "below": "At the end of the page",
}


def references(project: Project, addresses: Mapping[str, str]) -> str:
    """The script: of each entry of the bibliography what a card shows of it.

    Args:
        project: its bibliography and notes.
        addresses: where the note on each paper stands, from the root of the site, by its key.
    """
    entries = {}
    for key, entry in project.bibliography.items():
        paper, note = project.collection.get(key), project.by_key.get(key)
        shown = {
            "title": entry.title,
            "authors": ", ".join(entry.author_names),
            "source": ", ".join(filter(None, [entry.source, str(entry.year or "")])),
            "links": [list(link) for link in entry.links],
            "note": [note.title, addresses[key]] if note else None,
            "contribution": paper.contribution if paper else None,
            "bibtex": entry.bibtex,
        }
        entries[key] = {name: value for name, value in shown.items() if value}
    text = json.dumps({"words": _WORDS, "entries": entries}, ensure_ascii=False)
    return f"window.papercodeReferences = {text};\n"
