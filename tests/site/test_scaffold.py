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


LISTED = """\
# Papers that wait.
first2000x:
  name: "First"
  family: words
  contribution: "Begins."
  builds_on: []
fourth2016x:
  name: "The: Fourth"
  family: decoders
  contribution: 'Says "x: y", in 50 % of the cases # at least.'
  builds_on: [first2015scaled, first2000x]

# the end
last2020x: {name: "Last", family: words, contribution: "Ends.", builds_on: []}
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_listed_paper_moves_into_its_note(root, newline):
    listed = root / "papers/listed.yaml"
    listed.write_bytes(LISTED.replace("\n", newline).encode())
    project = Project(root)
    before = project.collection["fourth2016x"]
    written = scaffold(project, "decoders/new_one", "fourth2016x")
    assert written[-1] == listed
    start, end = LISTED.index("fourth2016x:"), LISTED.index("\n# the end")
    assert listed.read_bytes().decode() == (LISTED[:start] + LISTED[end:]).replace("\n", newline)
    after = Project(root).collection["fourth2016x"]
    assert after.reviewed
    for name in ("name", "family", "contribution", "builds_on"):
        assert getattr(after, name) == getattr(before, name)
    assert Project(root).by_key["fourth2016x"].problems == []


def test_the_last_and_the_shortest_record(root):
    listed = root / "papers/listed.yaml"
    listed.write_text(LISTED.rstrip("\n"))
    scaffold(Project(root), "words/last", "last2020x", "Another name")
    assert listed.read_text() == LISTED[: LISTED.index("last2020x")]
    note = load_note(root / "papers/words/last.md")
    assert (note.title, note.contribution, note.builds_on) == ("Another name", "Ends.", [])


def test_the_family_must_be_that_of_the_record(root):
    (root / "papers/listed.yaml").write_text(LISTED)
    before = contents(root)
    message = (
        r"name='words/fourth' puts fourth2016x into 'words', papers/listed.yaml into 'decoders'; write decoders/fourth"
    )
    with pytest.raises(ValueError, match=message):
        scaffold(Project(root), "words/fourth", "fourth2016x")
    assert contents(root) == before


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


def test_the_page_of_a_stub_is_shown(site):
    """While it is being written, with its TODOs: only a strict build would fail."""
    [note, module, *_] = scaffold(Project(site.root), "words/new_one", "fourth2016x", "The New One")
    # into the package of the tiny project, for the documentation knows our own by the same name
    note.write_text(note.read_text("utf-8").replace("papercode.words", "zoo.words"), "utf-8")
    module.rename(site.root / "src/zoo/words/new_one.py")
    shutil.rmtree(site.root / "src/papercode")
    built = site.build()
    assert "The New One" in built.page("papers/words/new_one")
    assert (built.folder / "papers/words/new_one.ipynb").is_file()
    others = [warning for warning in built.warnings if "still to be done" not in warning]
    assert not others
