import os
import shutil
import subprocess
import sys

import pytest

from papercode.site.check import check
from papercode.site.notes import HEADINGS, load_note
from papercode.site.project import Project
from papercode.site.scaffold import scaffold
from tiny import ROOT, edit

NAMES = ["papers/decoders/new_one.md", "src/papercode/decoders/new_one.py", "tests/decoders/test_new_one.py"]


def contents(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_writes_a_paper_in_three_trees_and_its_entry(root):
    before = (root / "references.bib").read_text()
    written = scaffold(Project(root), "decoders/new_one", "smith2021new")
    assert written == [*(root / name for name in NAMES), root / "references.bib"]
    assert all(path.is_file() for path in written)
    assert (root / "src/papercode/decoders/__init__.py").read_text() == '"""Decoders."""\n'

    project = Project(root)
    entry = project.bibliography["smith2021new"]
    assert (entry.year, project.bibliography.problems) == (2021, [])
    assert (root / "references.bib").read_text().startswith(before)
    note = load_note(written[0])
    assert note.problems == []
    assert (note.key, note.modules, note.builds_on) == ("smith2021new", ["papercode.decoders.new_one"], [])
    assert note.title == "New One"
    assert all(heading in note.text for heading in HEADINGS)


def test_the_name_can_be_chosen_and_an_entry_that_exists_is_left_alone(root):
    before = (root / "references.bib").read_text()
    written = scaffold(Project(root), "decoders/gpt2", "third2013plain", "GPT-2")
    assert [path.name for path in written] == ["gpt2.md", "gpt2.py", "test_gpt2.py"]
    assert (root / "references.bib").read_text() == before
    assert load_note(written[0]).title == "GPT-2"


def test_a_family_that_exists_keeps_its_docstring(root):
    package = root / "src/papercode/decoders/__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text('"""Ours."""\n')
    scaffold(Project(root), "decoders/new_one", "smith2021new")
    assert package.read_text() == '"""Ours."""\n'


@pytest.mark.parametrize("taken", NAMES)
def test_overwrites_nothing_and_then_writes_nothing(root, taken):
    path = root / taken
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = contents(root)
    with pytest.raises(FileExistsError, match=f"{taken} is there already; nothing was written"):
        scaffold(Project(root), "decoders/new_one", "smith2021new")
    assert contents(root) == before


@pytest.mark.parametrize(
    "name",
    [
        "new_one",
        "decoder/new_one",
        "decoders/New",
        "decoders/2x",
        "decoders/a/b",
        "decoders/",
        "decoders/class",
        "../decoders/x",
        "decoders/a-b",
        "site/x",
    ],
)
def test_a_wrong_name(root, name):
    before = contents(root)
    with pytest.raises(ValueError, match=r"name=.* must be family/name in small letters.*families: words, tokens"):
        scaffold(Project(root), name, "smith2021new")
    assert contents(root) == before


@pytest.mark.parametrize("key", ["smith", "2021smith", "smith 2021new", "smith2021,new", "", "smith21new"])
def test_a_wrong_key(root, key):
    before = contents(root)
    with pytest.raises(
        ValueError, match=r"key=.* must be author, year and first word of the title, such as hu2022lora"
    ):
        scaffold(Project(root), "decoders/new_one", key)
    assert contents(root) == before


def test_the_templates_work_as_they_are(tmp_path, katex, root):
    """Snippet, test and lint style of a stub; `check` lists every TODO, and nothing else."""
    shutil.copytree(ROOT / "src/papercode/site", root / "src/papercode/site", ignore=shutil.ignore_patterns("__pyc*"))
    shutil.copy(ROOT / "src/papercode/__init__.py", root / "src/papercode/__init__.py")
    (root / "pytest.ini").write_text("[pytest]\n")
    written = scaffold(Project(root), "decoders/new_one", "smith2021new")
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    arguments = ["-p", "papercode.site.pytest_plugin", "-q", "-W", "error", *NAMES[::2]]
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert "3 passed" in done.stdout, done.stdout + done.stderr  # two examples and the test
    ruff = [sys.executable, "-m", "ruff"]
    code = [str(written[1]), str(root / "src/papercode/decoders/__init__.py")]
    for command in (["check", *code], ["format", "--check", *code, str(written[2])]):
        done = subprocess.run([*ruff, *command, "--config", ROOT / "pyproject.toml"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    shutil.copytree(katex, Project(root).cache / katex.name)
    found = check(Project(root), [written[0]], run=False)
    lines = {path: enumerate((root / path).read_text().split("\n"), 1) for path in NAMES}
    todo = {f"{path}:{number}" for path in NAMES for number, line in lines[path] if "TODO" in line}
    assert {str(problem).split(": ")[0] for problem in found if problem.path.suffix != ".bib"} == todo
    assert all(problem.message.startswith("still to be done: TODO") for problem in found)
    entry = (root / "references.bib").read_text().split("\n").index("@misc{smith2021new,") + 1
    assert [p.line for p in found if p.path.suffix == ".bib"] == [entry + 1, entry + 2]
    edit(written[0], "TODO", "done")
    assert not any(p.path.name == "new_one.md" for p in check(Project(root), [written[0]], run=False))
