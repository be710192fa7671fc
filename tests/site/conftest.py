"""What the tests of the site share: a browser, and tiny projects."""

import os
import shutil

import pytest

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


@pytest.fixture
def site_root(tmp_path, katex):
    """A fresh tiny project that can be built."""
    return write_project(tmp_path, katex)
