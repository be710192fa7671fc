"""The MkDocs plugin: papers/ as pages, snippets run before rendering, citations, headers, API pages, KaTeX.

Thin on purpose: everything it calls is a library that `papercode check` and pytest call as well.
"""

import hashlib
import importlib.metadata
import logging
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from jinja2 import FileSystemBytecodeCache
from mkdocs.config import config_options
from mkdocs.config.base import Config
from mkdocs.plugins import BasePlugin, event_priority
from mkdocs.structure.files import File, Files
from watchdog.observers.polling import PollingObserver

from papercode.site import fonts, katex, npm
from papercode.site.api_pages import api_pages
from papercode.site.assets import WORKER, iframe_worker, own_files, own_of
from papercode.site.check import bibliography_problems, text_problems
from papercode.site.chinese import teach
from papercode.site.citations import CitationExtension
from papercode.site.code_pages import CodePages
from papercode.site.embed import HTML_FENCE, embed
from papercode.site.generated import generated_pages
from papercode.site.header import header, insert_header, page_of, relative
from papercode.site.home import fill
from papercode.site.home import problems as marker_problems
from papercode.site.marked import with_anchors
from papercode.site.math_fonts import fonts_of
from papercode.site.navigation import navigation, titles
from papercode.site.neighbourhood import neighbourhood
from papercode.site.notebook import notebook, notebook_of
from papercode.site.notes import Note
from papercode.site.page_cache import PageCache, without_aliases
from papercode.site.passes import passes, passes_line
from papercode.site.places import Places
from papercode.site.problem import Problem
from papercode.site.project import Project
from papercode.site.references import FILE as REFERENCES
from papercode.site.references import references
from papercode.site.runner import Outcome, progress_bar
from papercode.site.site_fonts import font_files
from papercode.site.store import Forgetful, Store, digest
from papercode.site.typeset import Typesetter, without_formulas

log = logging.getLogger("mkdocs.plugins.papercode")

ENGINE = Path(__file__).parent
_LIBRARIES = ("mkdocs", "properdocs", "mkdocs-material", "mkdocstrings", "mkdocstrings-python", "mkdocs-autorefs",
              "markdown", "pymdown-extensions", "pygments", "jinja2", "markdown-exec", "bibtexparser")  # fmt: skip
# the search puts a note before its modules
_BOOSTS = {
    "papers/index.md": 1,  # lists what the notes say
    "papers/": 3,
    "api/": 0.5,
    "parity": 0.5,
    "benchmarks": 0.5,
    "bibliography": 1.5,
}


class PapercodeConfig(Config):
    """The plugin's options in mkdocs.yml."""

    jobs = config_options.Optional(config_options.Type(int))
    cache = config_options.Type(bool, default=True)


class PapercodePlugin(BasePlugin[PapercodeConfig]):
    """Builds the site of a papercode project; nothing is kept from one build to the next but what is on disk."""

    def on_startup(self, *, command: str, dirty: bool) -> None:
        """Being here makes MkDocs keep this instance while it serves."""

    def on_config(self, config: Any) -> Any:
        """Reads the project and registers our Markdown extension, styles and folders to watch."""
        self.project = Project.find(Path(config.config_file_path).parent)
        self.pages: dict[str, Any] = {}
        self.page: Any = None
        self.extension = CitationExtension(
            bibliography=self.project.bibliography, link=self._link, missing=self._missing
        )
        config.markdown_extensions.append(self.extension)
        fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
        fences.append({"name": HTML_FENCE, "class": HTML_FENCE, "format": _as_it_is})
        config.theme.dirs.insert(0, str(ENGINE / "theme"))
        config.extra_css += [f"{fonts.FOLDER}fonts.css", "assets/papercode.css"]
        config.extra_javascript.append("assets/papercode.js")
        self.offline = any("offline" in name for name in config.plugins)
        if self.offline and "navigation.instant" in config.theme["features"]:  # it fetches pages, which needs a server
            config.theme["features"].remove("navigation.instant")
        watched = [self.project.papers, self.project.source, self.project.root / "references.bib"]
        config.watch += [str(path) for path in watched]
        return config

    def on_files(self, files: Files, *, config: Any) -> Files:
        """Runs the snippets and adds notes, figures, API pages, bibliography and assets to the site."""
        project = self.project
        self.store = Store(project.cache / "pages") if self.config.cache else Forgetful()
        self.engine = digest(_engine())
        self.known = digest(list(project.bibliography), list(project.sources.paths))
        self.cited = digest([[e.key, e.label, e.reference, e.links] for e in project.bibliography.values()])
        self.sources: dict[str, Path] = {}
        self._add_generated(files, config)  # first: these pages are rendered while snippets run
        for note in project.notes:
            self._add(
                files, config, page_of(note), path=note.path, edit=f"../papers/{note.path.relative_to(project.papers)}"
            )
        for path in sorted(p for p in project.papers.rglob("*.*") if p.suffix in {".svg", ".png", ".jpg", ".webp"}):
            self._add(files, config, f"papers/{path.relative_to(project.papers)}", path=path)
        for file in files.documentation_pages():
            if file.abs_src_path:
                self.sources[file.src_uri] = Path(file.abs_src_path)
                files.remove(file)  # to the end: pages are rendered in the order of the files
                files.append(file)
        self.outcomes = self._start_snippets()
        self._add_assets(files, config)
        self.typesetter = self._typesetter()
        config.nav = navigation(config.nav, project.notes, self.pages) if config.nav else None
        self.cache = PageCache(self.store, self._base(files, config))
        if "material/search" in config.plugins:
            taught = teach(term for note in project.notes for term in note.terms.values())
            index = config.plugins["material/search"].search_index
            self.cache.keep_search(index, without_formulas, taught)
        self.files = files
        self.code = CodePages(project, files, self.store)
        self._report(bibliography_problems(project))
        return files

    def on_page_read_source(self, *, page: Any, config: Any) -> str | None:
        """The Markdown of a page with what its snippets gave, and with its header if it is a note."""
        self.page = page
        path = self.sources.get(page.file.src_uri)
        return self._text(page.file.src_uri, path, config) if path else None

    @event_priority(-100)
    def on_page_markdown(self, markdown: str, *, page: Any, config: Any, files: Files) -> str:
        """Arranges that the page is rendered only if something it depends on has changed; runs after all others."""
        self.page = page
        page.markdown = markdown
        for start, boost in _BOOSTS.items():
            if page.file.src_uri.startswith(start):
                page.meta["search"] = {"boost": boost, **page.meta.get("search", {})}
        page.meta["own"] = own_of(page.file.src_uri)
        path = self.sources.get(page.file.src_uri)
        if note := self.project.by_path.get(path) if path else None:
            page.meta["passes"] = {each.anchor: [each.name, each.minutes] for each in passes(note.text)}
        module = self.pages.get(page.file.src_uri)
        code = "".join(self.project.sources.paths[m].read_text("utf-8") for m in [module] if m)
        mentioned = [
            [k, e.label, e.reference] for k, e in self.project.bibliography.items() if k in markdown or k in code
        ]
        modules = self.project.sources.fingerprint(f"import {module}") if module else {}
        autorefs, mkdocstrings = config.plugins.get("autorefs"), config.plugins.get("mkdocstrings")
        if autorefs:
            set_formulas = self.typesetter.set_formulas if self.typesetter else None
            self.cache.keep_markdown(
                page, [mentioned, modules], autorefs, lambda: _inventory(mkdocstrings), set_formulas
            )
        return markdown

    def on_page_content(self, html: str, *, page: Any, config: Any, files: Files) -> str:
        """Links the names in code to what they mean, and folds what imports bring below it."""
        if module := self.pages.get(page.file.src_uri):
            return self.code.api(html, page.url, module)
        path = self.sources.get(page.file.src_uri)
        return self.code.note(html, page.url, self.project.session(path)) if path else html

    def on_nav(self, nav: Any, *, config: Any, files: Files) -> Any:
        """Remembers the navigation, which every page shows."""
        self.nav = nav
        return nav

    def on_env(self, env: Any, *, config: Any, files: Files) -> Any:
        """Lets the templates be read back too, now that all titles are known."""
        found = [(note.key, files.get_file_from_path(page_of(note))) for note in self.project.notes]
        listed = references(self.project, {key: file.url for key, file in found if file})
        for uri, content in [(REFERENCES, listed), *self.code.scripts()]:
            self._add(files, config, uri, content=content)
        env.filters["fonts_of"] = lambda content: [
            fonts.FOLDER + name for name in (*fonts.TEXT_FONTS, *fonts_of(content)) if not self.offline
        ]
        env.bytecode_cache = FileSystemBytecodeCache(_folder(self.project.cache / "templates"))
        self.cache.keep_output(env, [titles(self.nav.items), config.edit_uri])
        if mkdocstrings := config.plugins.get("mkdocstrings"):
            mkdocstrings.get_handler("python")  # its style sheet is written only if a handler was asked for
            without_aliases(config.plugins["autorefs"], _inventory(mkdocstrings))
        return env

    def on_serve(self, server: Any, *, config: Any, builder: Any) -> Any:
        """Looks for saved files five times a second in place of two: a build is short enough for that to be felt."""
        watched = [config.docs_dir, config.config_file_path]
        for path in watched:
            server.unwatch(path)
        server.observer = PollingObserver(timeout=0.2)
        for path in watched:
            server.watch(path)
        return server

    def on_post_build(self, *, config: Any) -> None:
        """Says how much was read back, and keeps the caches within bounds."""
        log.debug("pages: %d read back, %d made", self.cache.hits, self.cache.misses)
        if self.typesetter:
            self.typesetter.close()
        self._write_fonts(config)
        if self.cache.misses:
            self.store.prune()
            Store(self.project.cache / "snippets").prune()

    # the parts

    def _typesetter(self) -> Typesetter | None:
        """Sets formulas, unless Node or KaTeX cannot be had."""
        try:
            npm.node()
            return Typesetter(katex.ensure_katex(self.project.cache), self.store)
        except npm.NodeError as error:  # one can write without seeing formulas; a strict build fails
            log.warning("formulas stay TeX: %s", error)
            return None

    def _add_assets(self, files: Files, config: Any) -> None:
        for uri, content in own_files():
            self._add(files, config, uri, content=content)
        if WORKER in config.extra.get("polyfills", ()):
            for uri, path in iframe_worker(self.project.cache).items():
                self._add(files, config, uri, path=path)

    def _write_fonts(self, config: Any) -> None:
        """The fonts, now that all pages are there."""
        pages = [Path(file.abs_dest_path).read_text("utf-8") for file in self.files.documentation_pages()]
        formulas = self.typesetter.katex if self.typesetter else None
        try:
            files = font_files(self.project.cache, pages, formulas, inside=self.offline)
        except npm.NodeError as error:
            log.warning("text is shown in system fonts: %s", error)
            return
        target = Path(config.site_dir, fonts.FOLDER)
        target.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (target / name).write_bytes(content)

    def _start_snippets(self) -> dict[Path, Future]:
        """Runs what is not known in workers, with a thread to watch them; each page can be waited for."""
        sessions = {path: self.project.session(path) for path in self.sources.values()}
        paths = {session.path: path for path, session in sessions.items()}
        outcomes: dict[Path, Future] = {path: Future() for path in sessions}
        runner = self.project.runner(cached=self.config.cache, jobs=self.config.jobs)

        def run() -> None:
            try:
                for outcome in runner.stream(sessions.values(), progress_bar()):
                    outcomes[paths[outcome.session.path]].set_result(outcome)
            except BaseException as error:
                for waiting in outcomes.values():
                    if not waiting.done():
                        waiting.set_exception(error)

        threading.Thread(target=run, daemon=True).start()  # daemon: Ctrl-C does not wait for the snippets
        return outcomes

    def _text(self, uri: str, path: Path, config: Any) -> str:
        """The Markdown of a page as it is to be rendered; reports what is wrong with it."""
        self._report(self._text_problems(path))
        outcome: Outcome = self.outcomes[path].result()
        self._report(outcome.problems)

        def figure(svg: str) -> str:
            target = f"assets/figures/{digest(svg)[:16]}.svg"
            if not self.files.get_file_from_path(target):
                self._add(self.files, config, target, content=svg)
            return relative(target, uri)

        text = path.read_text("utf-8")
        note = self.project.by_path.get(path)
        if not note:
            self._report(marker_problems(path, text, self.project))
            return fill(embed(text, outcome, figure), uri, self.project)
        self._add(self.files, config, notebook_of(note), content=self._notebook(note, outcome, config))
        block = header(note, self.project, self._repository(config)) + neighbourhood(note, self.project)
        text = insert_header(embed(with_anchors(text), outcome, figure), block)
        return insert_header(text, passes_line(passes(note.text)))

    def _notebook(self, note: Note, outcome: Outcome, config: Any) -> str:
        """The note as a notebook; read back while nothing it is made from has changed."""
        places = Places.of(self.project, config)
        key = digest(
            "notebook", self.engine, note.text, outcome.results, self.known, self.cited, list(self.sources), places.web
        )
        made = self.store.get(key)
        if made is None:
            made = notebook(note, outcome, self.project, places)
            self.store.put(key, made)
        return made

    def _text_problems(self, path: Path) -> list[Problem]:
        """What the check says of a page's text; read back while nothing it looks at has changed."""
        project = self.project
        key = digest("problems", self.engine, str(path), path.read_text("utf-8"), self.known)
        kept = self.store.get(key)
        if kept is None:
            kept = [[problem.line, problem.message] for problem in text_problems(project, path)]
            self.store.put(key, kept)
        return [Problem(path, line, message) for line, message in kept]

    def _report(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            log.warning("%s", Problem(self.project.relative(problem.path), problem.line, problem.message))

    def _add(self, files: Files, config: Any, uri: str, *, content: str | None = None, path: Path | None = None,
             edit: str | None = None) -> None:  # fmt: skip
        if content is None:
            file = File.generated(config, uri, abs_src_path=str(path))
        else:
            file = File.generated(config, uri, content=content)
        file.edit_uri = edit
        files.append(file)

    def _add_generated(self, files: Files, config: Any) -> None:
        project = self.project
        for uri, module, text in api_pages(project):
            self.pages[uri] = module
            self._add(files, config, uri, content=text, edit=f"../{project.relative(project.sources.paths[module])}")
        for page, text, edit in generated_pages(project):
            self._add(files, config, page, content=text, edit=edit)

    def _link(self, key: str) -> str:
        """Where a citation on the page being rendered leads: to a source, as MkDocs wants links that it can check."""
        return f"{relative('bibliography.md', self.page.file.src_uri)}#{key}"

    def _missing(self, key: str) -> None:
        """Unknown keys in notes are reported with their lines by the check; this is for docstrings."""
        uri = self.page.file.src_uri
        if uri not in self.sources:
            log.warning("%s: unknown citation key @%s: add it to references.bib", uri, key)

    def _repository(self, config: Any) -> str:
        return f"{config.repo_url.rstrip('/')}/blob/main/" if config.repo_url else ""

    def _base(self, files: Files, config: Any) -> Any:
        """What the look of every page depends on."""
        return [
            self.engine,
            sys.version,
            [_version(library) for library in _LIBRARIES],
            [path.read_text("utf-8") for path in sorted(self.project.root.glob("*.yml"))],
            config.site_url,
            config.use_directory_urls,
            self.typesetter is not None,
            sorted(file.src_uri for file in files if not file.src_uri.startswith("assets/figures/")),
        ]


def _engine() -> list:
    """The engine's own files: a change of it may change every page."""
    kinds = {".py", ".html", ".css", ".js", ".mjs"}
    files = sorted(path for path in ENGINE.rglob("*") if path.suffix in kinds)
    return [[path.relative_to(ENGINE).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]


def _folder(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return str(path)


def _as_it_is(source: str, *args: Any, **kwargs: Any) -> str:
    return f'<div class="output" markdown="0">{source}</div>'


def _inventory(mkdocstrings: Any) -> Any:
    return mkdocstrings.handlers.inventory if mkdocstrings else None


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
