"""Makes a build cost what changed: rendered Markdown, search entries and final HTML are kept by what they depend on.

MkDocs builds every page on every save, and `--dirty` builds one and leaves every other page that mentions it stale.
Here all pages are built every time, but what a page's inputs gave before is read back, so nothing is ever stale. Three
things are kept, because three steps cost: the HTML of the Markdown (with the anchors that the autorefs plugin and the
objects that mkdocstrings learnt from it), the page's entries of the search index, and the page in its template.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from mkdocs.structure.toc import get_toc

from papercode.site.slim import slim
from papercode.site.store import Store, digest

_FOLDED = re.compile(r'<details class="source\b[^>]*>.*?</details>', re.DOTALL)
_BIBTEX = re.compile(r'(<details class="cite\b[^>]*>\s*<summary>.*?</summary>).*?</details>', re.DOTALL)
_LOGGERS = ("mkdocs", "properdocs", "griffe", "papercode")


class PageCache:
    """Keeps what building pages gave, for one build of one site.

    Args:
        store: where it is kept.
        base: what every page depends on: versions, configuration, the names of all pages.
    """

    def __init__(self, store: Store, base: Any):
        self.store = store
        self.base = digest(base)
        self.hits = self.misses = 0

    def _get(self, key: str) -> Any | None:
        value = self.store.get(key)
        self.hits += value is not None
        self.misses += value is None
        return value

    def keep_markdown(
        self,
        page: Any,
        depends_on: Any,
        autorefs: Any,
        inventory: Callable[[], Any],
        finish: Callable[[str, str], str] | None = None,
    ) -> None:
        """Replaces `page.render` by one that reads the HTML back if the text and `depends_on` are what they were.

        A page that warns while it is rendered is not kept: the next build must warn again. `finish` gets the HTML and
        the page's source and gives the HTML to keep.
        """
        key = digest("markdown", self.base, page.file.src_uri, page.url, page.markdown, page.meta, depends_on)

        def render(config: Any, files: Any) -> None:
            kept = self._get(key)
            if kept is None:
                with (
                    _anchors_recorded(autorefs) as anchors,
                    _warnings_counted() as warnings,
                    _alone(inventory()) as made,
                ):
                    type(page).render(page, config, files)
                    if finish:
                        page.content = finish(page.content, page.file.src_uri)
                objects = [_object(item) for item in made.values()]
                _list(inventory(), objects)
                # a quiet build hears no warnings, so it cannot know
                if not warnings and logging.getLogger("mkdocs").isEnabledFor(logging.WARNING):
                    self.store.put(key, {**_saved(page), "anchors": anchors, "objects": objects})
                return
            page.content, page.toc = kept["content"], get_toc(kept["toc"])
            page._title_from_render = kept["title"]
            page.present_anchor_ids = set(kept["present"])
            found = ((files.get_file_from_path(uri), links) for uri, links in kept["links"].items())
            page.links_to_anchors = {file: links for file, links in found if file}
            for identifier, anchor, title, primary in kept["anchors"]:
                autorefs.register_anchor(page, identifier, anchor, title=title, primary=primary)
            _list(inventory(), kept["objects"])

        page.render = render

    def keep_search(self, index: Any, without: Callable[[str], str] = str, depends_on: Any = None) -> None:
        """Lets `index.add_entry_from_context` read a page's entries back instead of parsing its HTML.

        `without` takes out of the HTML what is not to be found. A page's entries depend on the page, and on what
        `depends_on` holds for all pages.
        """
        parse = index.add_entry_from_context

        def add_entry_from_context(page: Any) -> None:
            own = (page.url, page.title, page.meta, page.content, str(_toc(page.toc)))
            key = digest("search", self.base, depends_on, own)
            entries = self._get(key)
            if entries is None:
                before, content = len(index.entries), page.content
                # without the code of figures and modules, and BibTeX but for its key: long, and said elsewhere
                page.content = without(_BIBTEX.sub(r"\1</details>", _FOLDED.sub("", content)))
                parse(page)
                page.content = content
                self.store.put(key, index.entries[before:])
            else:
                index.entries.extend(entries)

        index.add_entry_from_context = add_entry_from_context

    def keep_output(self, env: Any, site: Any) -> None:
        """Lets the templates of `env` read a page's HTML back; `site` is what all pages show: the navigation."""
        get_template, around = env.get_template, digest(site)

        def get_cached(name: Any, *args: Any, **kwargs: Any) -> Any:
            template = get_template(name, *args, **kwargs)
            return _KeptTemplate(self, template, around)

        env.get_template = get_cached


class _KeptTemplate:
    """A template whose page, if it was rendered from the same inputs before, is not rendered again."""

    def __init__(self, cache: PageCache, template: Any, around: str):
        self.cache, self.template, self.around = cache, template, around

    def __getattr__(self, name: str) -> Any:
        return getattr(self.template, name)

    def render(self, context: dict[str, Any]) -> str:
        page = context.get("page")
        if page is None:  # 404.html, sitemap.xml
            return self.template.render(context)
        own = (page.url, page.title, page.meta, page.content, str(_toc(page.toc)), page.edit_url, page.canonical_url)
        key = digest("output", self.cache.base, self.around, self.template.name, own, context.get("tags"))
        output = self.cache._get(key)
        if output is None:
            output = slim(self.template.render(context))
            self.cache.store.put(key, output)
        return output


def _saved(page: Any) -> dict[str, Any]:
    return {
        "content": page.content,
        "toc": _toc(page.toc),
        "title": page._title_from_render,
        "present": sorted(page.present_anchor_ids or ()),
        "links": {file.src_uri: links for file, links in (page.links_to_anchors or {}).items()},
    }


@contextlib.contextmanager
def _alone(inventory: Any) -> Iterator[dict]:
    """The objects that a page lists when it is rendered as if it were the only one, so that they can be kept."""
    made: dict = {}
    before = dict(inventory or {})
    if inventory is not None:
        inventory.clear()
    try:
        yield made
    finally:
        if inventory is not None:
            made.update(inventory)
            inventory.clear()
            inventory.update(before)


def _list(inventory: Any, objects: list) -> None:
    for item in objects if inventory is not None else ():
        inventory.register(*item)


def without_aliases(autorefs: Any, inventory: Any) -> None:
    """Forgets the other names under which objects can be reached, such as the modules that import them.

    mkdocstrings knows those that it met so far in this build; what a site links to must not depend on that.
    """
    autorefs._secondary_url_map.clear()
    for name in [name for name, item in (inventory or {}).items() if not item.uri.endswith(f"#{name}")]:
        del inventory[name]


def _object(item: Any) -> list:
    return [item.name, item.domain, item.role, item.uri, item.priority, item.dispname]


def _toc(toc: Any) -> list[dict[str, Any]]:
    return [{"name": i.title, "id": i.id, "level": i.level, "children": _toc(i.children)} for i in toc]


@contextlib.contextmanager
def _anchors_recorded(autorefs: Any) -> Iterator[list]:
    """What the autorefs plugin is told while a page is rendered."""
    calls: list = []
    register = autorefs.register_anchor

    def record(
        page: Any, identifier: str, anchor: str | None = None, *, title: Any = None, primary: bool = True
    ) -> None:
        calls.append([identifier, anchor, title, primary])
        register(page, identifier, anchor, title=title, primary=primary)

    autorefs.register_anchor = record
    try:
        yield calls
    finally:
        del autorefs.register_anchor


@contextlib.contextmanager
def _warnings_counted() -> Iterator[list]:
    """The warnings that anything reports while a page is rendered."""
    found: list = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Collect(logging.WARNING)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield found
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
