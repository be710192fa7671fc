"""The lint of a project: what no test of the models sees and a reader would stumble over."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from papercode.site.citations import cited_keys
from papercode.site.collection import listed_problems
from papercode.site.embed import check_fences
from papercode.site.formulas import find_formulas, lint_math
from papercode.site.home import problems as marker_problems
from papercode.site.katex import check_formulas, ensure_katex
from papercode.site.marked import marked_problems
from papercode.site.notes import Note
from papercode.site.problem import Problem
from papercode.site.project import Project


def pages(project: Project) -> list[Path]:
    """The Markdown files of the site: notes and docs/."""
    return [note.path for note in project.notes] + sorted((project.root / "docs").rglob("*.md"))


def bibliography_problems(project: Project) -> Iterator[Problem]:
    """What is wrong with references.bib, and keys that two notes claim."""
    yield from project.bibliography.problems
    yield from listed_problems(project.listed, project.papers / "listed.yaml", project.by_key, project.bibliography)
    owners: dict[str, Note] = {}
    for note in project.notes:
        if note.key and note.key in owners:
            other = project.relative(owners[note.key].path)
            yield Problem(note.path, note.line_of("key:"), f"{note.key} already has a note, {other}")
        owners.setdefault(note.key, note)


def text_problems(project: Project, path: Path) -> Iterator[Problem]:
    """What is wrong with the text of one page; cheap enough for every build."""
    text = path.read_text("utf-8")
    yield from check_fences(path, text)
    yield from lint_math(path, text)
    for key, line in cited_keys(text, project.bibliography):
        if key not in project.bibliography:
            yield Problem(path, line, f"unknown citation key @{key}: add it to references.bib or correct it")
    if note := project.by_path.get(path):
        yield from note.problems
        yield from marked_problems(path, text)
        yield from _front_matter_problems(project, note)


def _front_matter_problems(project: Project, note: Note) -> Iterator[Problem]:
    for name, keys in (("key", [note.key]), ("builds_on", note.builds_on)):
        for key in keys:
            if key and key not in project.bibliography:
                yield Problem(note.path, note.line_of(key), f"front matter `{name}`: {key} is not in references.bib")
    for key in note.builds_on:
        if key in project.bibliography and key not in project.collection:
            message = f"front matter `builds_on`: {key} has neither a note nor a record in papers/listed.yaml"
            yield Problem(note.path, note.line_of(key), message)
    for module in note.modules:
        if module not in project.sources.paths:
            message = f"front matter `module`: there is no {module} below {project.relative(project.source)}/"
            yield Problem(note.path, note.line_of(module), message)


def public_names(project: Project, module: str) -> list[str]:
    """The functions and classes that `module` defines for others."""
    tree = ast.parse(project.sources.paths[module].read_text("utf-8"))
    defined = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
    return [node.name for node in tree.body if isinstance(node, defined) and not node.name.startswith("_")]


def surface_problems(project: Project, note: Note) -> Iterator[Problem]:
    """The public names of the note's modules that the note never mentions."""
    for module in note.modules:
        if module in project.sources.paths:
            try:
                names = public_names(project, module)
            except SyntaxError as error:
                yield Problem(project.sources.paths[module], error.lineno or 1, f"SyntaxError: {error.msg}")
                continue
            for name in names:
                if not re.search(rf"\b{name}\b", note.text):
                    yield Problem(note.path, note.line_of("module:"), f"the note never mentions {module}.{name}")


def left_over(project: Project, note: Note) -> Iterator[Problem]:
    """What the templates of `papercode new` ask for and nobody has written yet: in note, modules, test and entry."""
    family, name = note.name.split("/")
    test = project.root / "tests" / family / f"test_{name}.py"
    modules = [project.sources.paths[module] for module in note.modules if module in project.sources.paths]
    texts = [(path, 0, path.read_text("utf-8")) for path in [note.path, *modules, *([test] if test.is_file() else [])]]
    if entry := project.bibliography.get(note.key):
        texts.append((project.root / "references.bib", entry.line - 1, entry.bibtex))
    for path, before, text in texts:
        for number, line in enumerate(text.split("\n"), before + 1):
            if found := re.search(r"\bTODO\b", line):
                yield Problem(path, number, f"still to be done: {line[found.start() :].strip()}")


def formula_problems(project: Project, paths: Sequence[Path]) -> list[Problem]:
    """The formulas that KaTeX cannot read."""
    found = [
        (path, formula.line, formula.tex, formula.display)
        for path in paths
        for formula in find_formulas(path.read_text("utf-8"))
    ]
    return check_formulas(found, ensure_katex(project.cache))


def check(project: Project, paths: Sequence[Path] | None = None, *, run: bool = True) -> list[Problem]:
    """Everything that is wrong with the pages `paths` (all if None), snippets included unless `run` is False."""
    chosen = pages(project) if paths is None else list(paths)
    found = list(bibliography_problems(project)) if paths is None else []
    for path in chosen:
        found.extend(text_problems(project, path))
        if path not in project.by_path:
            found.extend(marker_problems(path, path.read_text("utf-8"), project))
    for note in project.notes:
        if note.path in chosen:
            found.extend(surface_problems(project, note))
            found.extend(left_over(project, note))
    found.extend(formula_problems(project, chosen))
    if run:
        sessions = [project.session(path) for path in chosen]
        for outcome in project.runner().run(sessions).values():
            found.extend(outcome.problems)
    return sorted(Problem(project.relative(p.path), p.line, p.message) for p in set(found))
