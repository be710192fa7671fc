"""Imports are lineage: a paper's module stands on the papers that its note names, and on nothing newer."""

import os
import subprocess
import sys

import pytest

from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT, edit, write_project

# modules of papers that have no note yet, with the key of their paper
WITHOUT_NOTE: dict[str, str] = {}


class Lineage:
    """What a project says of its papers, and what its modules import."""

    def __init__(self, project, without_note=WITHOUT_NOTE):
        self.project = project
        self.key = {module: note.key for module, note in project.by_module.items()} | without_note

    @property
    def modules(self):
        """The modules of the families."""
        return [module for module in self.project.sources.paths if self.family(module) and not self.is_package(module)]

    def is_package(self, module):
        return self.project.sources.paths[module].name == "__init__.py"

    def family(self, module):
        parts = module.split(".")
        return parts[1] if len(parts) > 1 and parts[1] in FAMILIES else None

    def imports(self, module):
        """What a module imports, packages left out."""
        return [name for name in sorted(self.project.sources.imports(module)) if not self.is_package(name)]

    def ancestors(self, key):
        """The papers that `key` builds on, directly or through others."""
        found, queue = set(), [key]
        while queue:
            note = self.project.by_key.get(queue.pop())
            new = set(note.builds_on) - found if note else set()
            found |= new
            queue.extend(new)
        return found

    def pairs(self):
        """Which paper's module imports which paper's, of modules whose papers are known."""
        return [
            (module, name)
            for module in self.modules
            for name in self.imports(module)
            if self.key.get(module) and self.key.get(name) and self.family(name)
        ]

    # the rules; each gives what breaks it

    def strangers(self):
        """Modules that belong to no paper we know of."""
        return [module for module in self.modules if not self.key.get(module)]

    def undeclared(self):
        """Imports from papers that are no ancestors of the importing one."""
        return [
            (module, name)
            for module, name in self.pairs()
            if self.key[name] not in {self.key[module], *self.ancestors(self.key[module])}
        ]

    def from_below(self):
        """Imports from a family that stands further down."""
        order = list(FAMILIES)
        return [pair for pair in self.pairs() if order.index(self.family(pair[0])) < order.index(self.family(pair[1]))]

    def from_the_future(self):
        """Papers, and modules, that build on what was published after them."""
        pairs = [(note.key, other) for note in self.project.notes for other in note.builds_on]
        pairs += [(self.key[module], self.key[name]) for module, name in self.pairs()]
        return sorted({pair for pair in pairs if self._later(*reversed(pair))})

    def _later(self, one, other):
        """Whether `one` was published after `other`; in the same year both months have to be known."""
        first, then = self.project.published(other), self.project.published(one)
        return then > first if 0 not in (first[1], then[1]) else then[0] > first[0]

    def circles(self):
        """Papers among their own ancestors."""
        return sorted(note.key for note in self.project.notes if note.key in self.ancestors(note.key))

    def shared_on_papers(self):
        """What is no paper's idea must not stand on one; only the names of released weights map papers to papers."""
        return [
            (module, name)
            for module in self.project.sources.paths
            if not self.family(module) and not self.is_package(module) and module.split(".")[1] != "checkpoints"
            for name in self.imports(module)
            if self.family(name)
        ]

    def on_the_engine(self):
        """Models that import the site engine."""
        return [(m, name) for m in self.modules for name in self.imports(m) if name.split(".")[1] == "site"]


RULES = ["strangers", "undeclared", "from_below", "from_the_future", "circles", "shared_on_papers", "on_the_engine"]


@pytest.fixture(scope="module")
def ours():
    return Lineage(Project(ROOT))


@pytest.mark.parametrize("rule", RULES)
def test_our_papers_keep(ours, rule):
    assert getattr(ours, rule)() == []


def test_there_is_something_to_keep(ours):
    assert len(ours.modules) >= 15
    assert sum(bool([name for name in ours.imports(module) if ours.family(name)]) for module in ours.modules) >= 5
    assert "ba2016layer" in ours.ancestors("vaswani2017attention")
    assert "papercode.attention.layer_norm" in ours.imports("papercode.attention.transformer")
    assert all(ours.project.published(key) < (2100, 0) for key in ours.key.values())


def test_the_table_lists_only_what_has_no_note(ours):
    assert set(WITHOUT_NOTE) <= set(ours.project.sources.paths) - set(ours.project.by_module)


# the rules can be broken: on the tiny project, in which adaptation/adapter imports attention/scaled


@pytest.fixture
def broken(tmp_path):
    """Breaks the tiny project as told, and gives those of its rules that notice."""

    def after(*edits):
        write_project(tmp_path)
        for name, old, new in edits:
            edit(tmp_path / name, old, new)
        lineage = Lineage(Project(tmp_path), without_note={})
        return {rule: found for rule in RULES if (found := getattr(lineage, rule)())}

    return after


ADAPTER, SCALED = "zoo.adaptation.adapter", "zoo.attention.scaled"
NOTE, OTHER_NOTE = "papers/adaptation/adapter.md", "papers/attention/scaled.md"


def test_the_tiny_project_keeps_the_rules(broken):
    assert broken() == {}


def test_an_import_that_the_note_does_not_declare(broken):
    assert broken((NOTE, "builds_on: [first2015scaled]", "builds_on: []")) == {"undeclared": [(ADAPTER, SCALED)]}


def test_an_import_through_an_ancestor_is_declared(broken):
    through = [
        (NOTE, "builds_on: [first2015scaled]", "builds_on: [third2013plain]"),
        ("papers/words/plain.md", "builds_on: []", "builds_on: [first2015scaled]"),
        ("references.bib", "year = {2013}", "year = {2017}"),
    ]
    assert broken(*through) == {}


def test_an_import_from_a_family_below(broken):
    found = broken(
        ("src/zoo/words/plain.py", '"""Plain words."""', '"""Plain words."""\n\nfrom zoo.attention import scaled'),
        ("papers/words/plain.md", "builds_on: []", "builds_on: [first2015scaled]"),
        ("references.bib", "year = {2013}", "year = {2017}"),
    )
    assert found == {"from_below": [("zoo.words.plain", SCALED)]}


def test_an_ancestor_from_the_future(broken):
    assert broken(("references.bib", "year = {2015}", "year = {2020}")) == {
        "from_the_future": [("second2019adapter", "first2015scaled")]
    }
    # in the same year the months decide, if they are known
    march, february = (f"year = {{2019}}, month = {month}" for month in ("mar", "feb"))
    same_year = ("references.bib", "year = {2015}", march)
    assert broken(same_year) == {}
    assert broken(("references.bib", "year = {2019}", february), same_year) == {
        "from_the_future": [("second2019adapter", "first2015scaled")]
    }


def test_a_circle(broken):
    found = broken(
        (OTHER_NOTE, "builds_on: []", "builds_on: [second2019adapter]"),
        ("references.bib", "year = {2015}", "year = {2019}"),
    )
    assert found == {"circles": ["first2015scaled", "second2019adapter"]}


def test_a_module_of_no_paper(broken):
    assert broken((OTHER_NOTE, "module: zoo.attention.scaled", "module: zoo.attention"))["strangers"] == [SCALED]


def test_what_is_shared_stands_on_no_paper(broken, tmp_path):
    (tmp_path / "src/zoo").mkdir(parents=True)
    (tmp_path / "src/zoo/training.py").write_text("from zoo.attention.scaled import scaled\n")
    assert broken() == {"shared_on_papers": [("zoo.training", SCALED)]}


def test_models_do_not_know_the_site(broken, tmp_path):
    (tmp_path / "src/zoo/site").mkdir(parents=True)
    (tmp_path / "src/zoo/site/figure.py").write_text("")
    found = broken(("src/zoo/words/plain.py", '"""Plain words."""', "import zoo.site.figure"))
    assert found == {"on_the_engine": [("zoo.words.plain", "zoo.site.figure")]}


# what an import costs

SCRIPT = """
import importlib, pkgutil, sys
import papercode
assert not {"torch", "numpy"} & set(sys.modules), "papercode"
import papercode.site
names = [f"papercode.site.{module.name}" for module in pkgutil.iter_modules(papercode.site.__path__)]
names.remove("papercode.site.warm")  # which is there to import torch, in the workers
for name in names:
    importlib.import_module(name)
    heavy = {"torch", "numpy", "matplotlib", "transformers"} & set(sys.modules)
    assert not heavy, f"{name} imports {', '.join(heavy)}"
models = {name for name in sys.modules if name.startswith("papercode.") and not name.startswith("papercode.site")}
assert not models, models
print(len(names))
"""


def test_the_engine_imports_no_torch():
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25
