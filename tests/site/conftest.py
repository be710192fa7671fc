"""What the tests of the site share: a browser, and tiny projects."""

import dataclasses
import logging
import os
import shutil
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

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
    """KaTeX's files, fetched for the real project: each tiny project with an empty cache would fetch them again."""
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
