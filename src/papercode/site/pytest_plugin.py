"""Collects the snippets of notes as tests: one an example, `papers/adaptation/lora.md::87`.

The whole page runs once, in a process of its own, before the first of its examples reports; so any selection of tests
(`-k`, `--lf`, one id) and any way of distributing them work. Where several pages are selected they run side by side.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from papercode.site.fences import Fence
from papercode.site.problem import Problem
from papercode.site.project import Project
from papercode.site.runner import Outcome, Session, examples

_OUTCOMES = pytest.StashKey[dict[Path, Outcome]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fresh-snippets`: run also what the cache knows."""
    parser.addoption("--fresh-snippets", action="store_true", help="run the snippets of notes even if nothing changed")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "Page | None":
    """Markdown files below the papers/ or docs/ of a project."""
    if file_path.suffix != ".md":
        return None
    try:
        project = Project.find(file_path)
    except FileNotFoundError:
        return None
    if not {project.papers, project.root / "docs"} & set(file_path.parents):
        return None
    session = project.session(file_path)
    return Page.of(parent, file_path, project, session) if session.fences else None


class Page(pytest.File):
    """A page with executed fences."""

    project: Project
    snippets: Session

    @classmethod
    def of(cls, parent: pytest.Collector, path: Path, project: Project, session: Session) -> "Page":
        """The page at `path`."""
        page: Page = cls.from_parent(parent, path=path)
        page.project, page.snippets = project, session
        return page

    def collect(self) -> Iterator["Snippet"]:
        """One test an example of a claim, one a figure."""
        for number, fence in enumerate(self.snippets.fences):
            listed = examples(fence)
            for index, example in enumerate(listed):
                yield Snippet.of(self, fence.line + 1 + example.lineno, number, index)
            if not listed:  # a fence that cannot be parsed must not pass for one without examples
                yield Snippet.of(self, fence.line, number, 0)

    def outcome(self) -> Outcome:
        """What the page's session gave; runs it, and with it the other selected pages, when first asked."""
        known = self.config.stash.setdefault(_OUTCOMES, {})
        if self.path not in known:
            alone = "PYTEST_XDIST_WORKER" in os.environ  # the other workers run the other pages
            items = [] if alone else self.session.items
            pages = {item.page for item in items if isinstance(item, Snippet)} | {self}
            runner = self.project.runner(cached=not self.config.getoption("--fresh-snippets"))
            outcomes = runner.run(page.snippets for page in pages)
            known.update({page.path: outcomes[page.snippets.path] for page in pages})
        return known[self.path]


class Snippet(pytest.Item):
    """One example."""

    page: Page
    line: int
    number: int
    index: int

    @classmethod
    def of(cls, page: Page, line: int, number: int, index: int) -> "Snippet":
        """Example `index` of fence `number`, which stands on `line`."""
        item: Snippet = cls.from_parent(page, name=str(line))
        item.page, item.line, item.number, item.index = page, line, number, index
        return item

    @property
    def fence(self) -> Fence:
        """The fence that the example belongs to."""
        return self.page.snippets.fences[self.number]

    def runtest(self) -> None:
        """Fails if the example's output is not the written one, or if its page stopped here."""
        outcome = self.page.outcome()
        problems = outcome.failures(self.number)
        stopped = self.number >= len(outcome.results) or outcome.results[self.number].get("stopped")
        own_lines = [self.fence.line + 1 + example.lineno for example in examples(self.fence)]
        for problem in problems:
            # what belongs to no example, such as a fence that cannot be parsed, is reported by the first
            if stopped or problem.line == self.line or (self.index == 0 and problem.line not in own_lines):
                raise SnippetFailure(problem)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None) -> str:
        """The place and the difference, without a traceback through the engine."""
        if isinstance(excinfo.value, SnippetFailure):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where the example stands, as `file:line`."""
        return self.path, self.line - 1, f"{self.page.snippets.path}:{self.line}"


class SnippetFailure(Exception):  # noqa: N818
    """An example did not do what the page says."""

    def __init__(self, problem: Problem):
        super().__init__(str(problem))
