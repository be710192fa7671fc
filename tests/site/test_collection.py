import pytest

from papercode.site.check import bibliography_problems, text_problems
from papercode.site.project import Project
from tiny import add_listed, edit

LISTED = """\
# waiting for late2020y
early2001x:
  name: Early
  family: words
  contribution: "Comes first."
  builds_on: []
late2020y:
  name: Late
  family: attention
  contribution: "Comes last."
  builds_on: [first2015scaled, early2001x]
"""
BIB = """
@book{early2001x, title={E}, author={E, E}, year={2001}}
@book{late2020y, title={L}, author={L, L}, year={2020}}
"""


@pytest.fixture
def listed(root):
    """A project with two papers that wait for a note."""
    return add_listed(root, LISTED, BIB)


def problems(root):
    return [f"{p.path.name}:{p.line}: {p.message}" for p in bibliography_problems(Project(root))]


def test_papers_with_and_without_a_note_in_the_order_of_publication(listed):
    found = Project(listed).collection
    assert list(found) == ["early2001x", "third2013plain", "first2015scaled", "second2019adapter", "late2020y"]
    assert [paper.reviewed for paper in found.values()] == [False, True, True, True, False]
    late, adapter = found["late2020y"], found["second2019adapter"]
    assert (late.name, late.family, late.contribution) == ("Late", "attention", "Comes last.")
    assert late.builds_on == ("first2015scaled", "early2001x")
    assert late.page == "bibliography.md#late2020y"
    assert (adapter.name, adapter.family, adapter.contribution) == ("Adapter", "adaptation", "Brings adapter.")
    assert adapter.page == "papers/adaptation/adapter.md"
    assert not problems(listed)


def test_a_note_counts_more_than_a_record(listed):
    edit(listed / "papers/listed.yaml", "late2020y", "third2013plain")
    found = Project(listed).collection["third2013plain"]
    assert (found.name, found.reviewed) == ("Plain", True)


def test_imports_are_lineage_too(root):
    found = Project(root).collection
    assert found["second2019adapter"].imports == {"first2015scaled"}
    assert found["first2015scaled"].imports == frozenset()
    edit(root / "papers/adaptation/adapter.md", "zoo.adaptation.adapter", "[zoo.adaptation.adapter, zoo.words.plain]")
    with (root / "src/zoo/words/plain.py").open("a") as file:
        file.write("\nfrom zoo.adaptation.adapter import adapted\n")
    (root / "papers/words/plain.md").unlink()
    assert Project(root).collection["second2019adapter"].imports == {"first2015scaled"}  # not itself


def write_test(root, name, code):
    path = root / f"tests/{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)


def proved(root, row, code):
    """The papers that a test with such a row, or mark, speaks for."""
    write_test(root, "adaptation/test_adapter", f"from zoo.attention.scaled import x\n{code}")
    (root / "tests/parity.csv").write_text(f"model,reference,configuration,error,test\n{row}\n")
    found = Project(root).collection.values()
    return [paper.name for paper in found if paper.parity], [paper.name for paper in found if paper.gpu]


@pytest.mark.parametrize(
    ("row", "code", "expected"),
    [
        ("", "from zoo.adaptation.adapter import y", ([], [])),
        # named for a module, which imports another
        ("A,B,c,0,tests/adaptation/test_adapter.py", "from zoo.adaptation.adapter import y", (["Adapter"], [])),
        ("A,B,c,0,tests/adaptation/test_adapter.py", "", ([], [])),  # the module is not even imported
        ("A,B,c,0,tests/adaptation/test_other.py", "from zoo.adaptation.adapter import y", ([], [])),
        # the model is defined there, whatever the test's name
        ("scaled,B,c,0,tests/adaptation/test_adapter.py", "", (["Scaled"], [])),
        ("scale,B,c,0,tests/adaptation/test_adapter.py", "", ([], [])),
        ("", "pytestmark = pytest.mark.gpu", ([], ["Scaled"])),
    ],
)
def test_what_is_proved_by_a_test(root, row, code, expected):
    assert proved(root, row, code) == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("family: attention", "family: x", "listed.yaml:7: late2020y: unknown family 'x'; families: words,"),
        ("name: Late", "name: 3", "listed.yaml:7: late2020y: `name` must be a text, got 3"),
        ("  name: Late\n", "", "listed.yaml:7: late2020y: a record has name, family, contribution, builds_on, and"),
        ("[first2015scaled, ", "[nowhere1999z, ", "listed.yaml:7: late2020y: `builds_on` names nowhere1999z, which"),
        ("[first2015scaled, early2001x]", "first", "listed.yaml:7: late2020y: `builds_on` must be a list of keys"),
        ("late2020y", "third2013plain", "listed.yaml:7: third2013plain has a note by now: delete its record here"),
        ("late2020y", "unknown2020z", "listed.yaml:7: unknown2020z is not in references.bib"),
        ("  name: Late", " name: Late\n   x", "listed.yaml:10: not YAML: "),
        (LISTED, "- a\n", "listed.yaml:1: must be one record a key, got list"),
    ],
)
def test_what_is_wrong_with_the_list_is_told_with_its_line(listed, old, new, message):
    edit(listed / "papers/listed.yaml", old, new)
    found = problems(listed)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_a_note_builds_on_papers_of_the_collection(listed):
    note = listed / "papers/adaptation/adapter.md"
    with (listed / "references.bib").open("a") as file:
        file.write("@book{other2002z, title={O}, author={O, O}, year={2002}}\n")
    edit(note, "[first2015scaled]", "[first2015scaled, early2001x, other2002z]")
    found = [problem.message for problem in text_problems(Project(listed), note)]
    assert found == ["front matter `builds_on`: other2002z has neither a note nor a record in papers/listed.yaml"]
