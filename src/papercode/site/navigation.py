"""The navigation of the site: what mkdocs.yml says, with the folders in it filled by family."""

from collections.abc import Iterable, Mapping
from typing import Any

from papercode.site.header import page_of
from papercode.site.notes import FAMILIES, Note


def navigation(nav: list, notes: Iterable[Note], modules: Mapping[str, str]) -> list:
    """`nav` of mkdocs.yml, in which `papers/` and `api/` stand for their pages, by family and from the oldest paper on.

    Args:
        nav: what mkdocs.yml says.
        notes: the notes in their order.
        modules: the module of each API page.
    """
    by_family: dict[str, list] = {}
    for note in notes:
        by_family.setdefault(FAMILIES.get(note.family, note.family), []).append(page_of(note))
    # the families from the ground up, then what is no paper's idea
    groups: dict[str, list] = {family: [] for family in FAMILIES}
    for uri, module in modules.items():
        _, *folder, name = module.split(".")
        groups.setdefault(folder[0] if folder else "shared", []).append({name: uri})
    named = ({FAMILIES.get(group, group.capitalize()): found} for group, found in groups.items() if found)
    parts: dict[str, list] = {
        "papers/": ["papers/index.md", *({name: found} for name, found in by_family.items())],
        "api/": [{"Modules": "api/index.md"}, *named],
    }

    def filled(item: Any) -> Any:
        if isinstance(item, dict):
            return {title: filled(part) for title, part in item.items()}
        return parts.get(item, item) if isinstance(item, str) else item  # a list names its pages itself

    return [filled(item) for item in nav]


def titles(items: list) -> list:
    """The navigation as JSON: every title and address in it."""
    return [[item.title, getattr(item, "url", None), titles(item.children or [])] for item in items]
