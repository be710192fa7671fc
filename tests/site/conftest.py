"""What the tests of the site share: a browser, and tiny projects."""

import dataclasses
import functools
import http.server
import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from listener import listen
from mkdocs.commands.build import build
from mkdocs.config import load_config

from papercode.site import fonts
from papercode.site.katex import ensure_katex
from papercode.site.project import Project
from tiny import ROOT, write_project


@pytest.fixture(scope="module")  # Playwright runs once at a time in a process
def browser():
    """Debian's chromium, or the one that CHROMIUM names; only CI insists on it."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        if os.environ.get("CI"):
            pytest.fail("no chromium: CI has to install it")
        pytest.skip("no chromium: apt-get install chromium, or set CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def katex():
    """KaTeX's files, fetched for the real project: each tiny project with an empty cache would fetch them again.

    The fonts are beside them.
    """
    for package in (fonts.SANS, fonts.CODE):
        package.ensure(Project(ROOT).cache)
    return ensure_katex(Project(ROOT).cache)


@pytest.fixture
def root(tmp_path):
    """A fresh tiny project; it has no site, for it has no KaTeX."""
    return write_project(tmp_path)


@dataclasses.dataclass
class Built:
    """What a build gave: the site's folder, what was warned of, and how much was read from the cache."""

    root: Path
    folder: Path
    warnings: list[str]
    config: object
    hits: int = 0
    misses: int = 0

    def page(self, name: str) -> str:
        """The HTML of a page, `papers/attention/scaled`."""
        return (self.folder / name / "index.html").read_text("utf-8")

    def files(self) -> dict[str, bytes]:
        """Every file of the site by its name."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


class Site:
    """A tiny project that can be built, with MkDocs in this process."""

    def __init__(self, root: Path, katex: Path):
        self.root, self.katex = root, katex
        self.number = 0

    def build(self, *, strict: bool = False, cache: bool = True, quiet: bool = False, **options: object) -> Built:
        """Builds into a new folder outside the project; `options` are those of mkdocs.yml."""
        self.number += 1
        folder = self.root.with_name(f"{self.root.name}-site{self.number}")
        messages: list[str] = []

        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                messages.append(record.getMessage())

        handler, log = Keep(logging.WARNING), logging.getLogger("mkdocs")
        level = log.level
        log.addHandler(handler)
        log.setLevel(logging.ERROR if quiet else logging.WARNING)
        try:
            config = load_config(str(self.root / "mkdocs.yml"), site_dir=str(folder), strict=strict, **options)
            plugin = config.plugins["papercode"]
            plugin.config.cache = cache
            build(config)
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
        built = Built(self.root, folder, messages, config)
        if plugin.cache:
            built.hits, built.misses = plugin.cache.hits, plugin.cache.misses
        return built


@pytest.fixture(scope="session", autouse=True)
def same_date():
    """The date that goes into the sitemap, on both sides of midnight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1000000000")
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory, katex):
    """The tiny project, built once with an empty cache."""
    return Site(write_project(tmp_path_factory.mktemp("base") / "project", katex), katex).build()


@pytest.fixture
def site(base, tmp_path, katex):
    """A copy of that project to be changed and built, with all that its cache knows."""
    shutil.copytree(base.root, tmp_path / "project")
    return Site(tmp_path / "project", katex)


@pytest.fixture(scope="session")
def whole_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make build` does: any warning would have failed it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def address(whole_site: Path):
    """Serves the site on a free port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=whole_site)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser, address):
    """A page that knows which addresses it asked for and what went wrong on it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, base_url=address)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    page = listen(context.new_page())
    yield page
    context.close()
    assert not page.errors
