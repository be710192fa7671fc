"""What every module and every note of the collection must have, whoever wrote it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from papercode.site.check import check
from papercode.site.citations import cited_keys
from papercode.site.fences import fences
from papercode.site.project import Project
from test_lineage import WITHOUT_NOTE, Lineage
from tiny import ROOT

PROJECT = Project(ROOT)
LINEAGE = Lineage(PROJECT)
MODULES = [name for name in PROJECT.sources.paths if not name.startswith("papercode.site")]
PACKAGES = [name for name in PROJECT.sources.paths if LINEAGE.is_package(name)]
# the module in which a paper's idea itself stands: the first of its note
MAIN = [note.modules[0] for note in PROJECT.notes if note.modules] + list(WITHOUT_NOTE)
NAMES = [note.name for note in PROJECT.notes]


def tree(module):
    return ast.parse(PROJECT.sources.paths[module].read_text("utf-8"))


def undocumented(node, name):
    """The public classes, functions, methods and properties below `node` that have no docstring."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            if not ast.get_docstring(child):
                yield f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from undocumented(child, f"{name}.{child.name}")


def docstrings(node):
    """Every docstring of a module."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return [text for child in ast.walk(node) if isinstance(child, kinds) and (text := ast.get_docstring(child))]


def test_there_is_something_to_look_at():
    assert len(MODULES) > 15
    assert len(NAMES) >= 2
    assert "papercode.attention.transformer" in MAIN


# modules


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module):
    assert ast.get_docstring(tree(module))
    assert list(undocumented(tree(module), module)) == []


def test_a_missing_docstring_is_noticed():
    code = (
        'class A:\n    """A."""\n    def f(self):\n        pass\n    def _g(self):\n        pass\ndef h():\n    pass\n'
    )
    assert list(undocumented(ast.parse(code), "m")) == ["m.A.f", "m.h"]


@pytest.mark.parametrize("module", MODULES)
def test_every_key_cited_in_a_docstring_exists(module):
    text = "\n\n".join(docstrings(tree(module)))
    assert [key for key, _ in cited_keys(text, PROJECT.bibliography) if key not in PROJECT.bibliography] == []


@pytest.mark.parametrize("module", LINEAGE.modules)
def test_a_module_cites_its_paper(module):
    cited = {key for key, _ in cited_keys(ast.get_docstring(tree(module)), PROJECT.bibliography)}
    assert LINEAGE.key[module] in cited
    # and whomever it imports from
    imported = {LINEAGE.key[name] for name in LINEAGE.imports(module) if LINEAGE.family(name)}
    assert imported <= cited


@pytest.mark.parametrize("module", MAIN)
def test_a_papers_module_says_how_it_differs_from_the_paper(module):
    docstring = ast.get_docstring(tree(module))
    assert "Differences from the paper:" in docstring
    assert "Imports: " in docstring


@pytest.mark.parametrize("module", PACKAGES)
def test_packages_export_nothing(module):
    """So that an import line names the paper."""
    body = tree(module).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert ast.get_docstring(tree(module))


@pytest.mark.parametrize("module", LINEAGE.modules)
def test_every_papers_module_has_its_test(module):
    _, family, *_, name = module.split(".")
    assert (ROOT / "tests" / family / f"test_{name}.py").is_file()


SCRIPT = """
import importlib, os, sys
import torch
for name in sys.argv[1:]:
    if not (child := os.fork()):  # each begins anew, with torch at hand
        try:
            importlib.import_module(name)
            extra = {"transformers", "triton", "peft", "matplotlib", "mkdocs", "pytest"} & set(sys.modules)
            assert not extra, f"{name} imports {', '.join(sorted(extra))}"
        except BaseException as error:
            print(f"{name}: {error!r}", flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def imported_alone(modules):
    """What goes wrong when each of `modules` is the first to be imported."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


# the kernels, which everything else imports only when it is about to run them
WITH_TRITON = ["papercode.attention.flash_kernels", "papercode.attention.flash_triton"]


def test_every_module_can_be_imported_alone_and_asks_for_little():
    assert imported_alone([name for name in MODULES if name not in WITH_TRITON]) == []
    first, second = imported_alone(["papercode.site.warm", "papercode.nothing"])
    assert first.startswith("papercode.site.warm: AssertionError('papercode.site.warm imports matplotlib")
    assert second.startswith("papercode.nothing: ModuleNotFoundError")


# notes


def test_the_check_finds_nothing():
    """Headings, front matter, citations, formulas, names that no note mentions, work that is still to be done."""
    assert [str(problem) for problem in check(PROJECT, run=False)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_note_has_claims_figures_questions_and_citations(name):
    note = next(note for note in PROJECT.notes if note.name == name)
    executed = [fence for fence in fences(note.text) if fence.executed]
    claims = [fence for fence in executed if fence.language == "pycon"]
    assert sum(fence.code.count(">>> ") for fence in claims) >= 5
    assert sum(fence.html for fence in executed) >= 1
    assert note.text.count("??? question") >= 3
    assert len({key for key, _ in cited_keys(note.text, PROJECT.bibliography)}) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_the_three_trees_have_the_same_paths(name):
    note = next(note for note in PROJECT.notes if note.name == name)
    assert note.path == ROOT / "papers" / f"{name}.md"
    if note.modules:
        assert note.modules[0] == f"papercode.{name.replace('/', '.')}"
        assert PROJECT.sources.paths[note.modules[0]] == Path(ROOT / "src/papercode" / f"{name}.py")
