import pytest

from papercode.site.project import Project
from tiny import PLAIN, edit


def test_is_found_from_anywhere_inside(root):
    for start in (root, root / "papers/attention", root / "papers/attention/scaled.md", root / "src"):
        assert Project.find(start).root == root


def test_is_not_found_elsewhere(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    with pytest.raises(FileNotFoundError, match=r"no papercode project \(references.bib and papers/\) in .*outside"):
        Project.find(outside)
    (outside / "references.bib").touch()
    with pytest.raises(FileNotFoundError):
        Project.find(outside)
    (outside / "papers").mkdir()
    assert Project.find(outside).root == outside


def test_the_nearest_project_counts(root):
    inner = root / "docs/inner"
    (inner / "papers").mkdir(parents=True)
    (inner / "references.bib").touch()
    assert Project.find(inner / "papers").root == inner


def test_notes_stand_by_family_and_within_it_by_publication(root):
    """The family counts before the year, the year before the name."""
    for name, key in (("aaa", "late2018x"), ("bbb", "early2010x"), ("ccc", "unknown2001x"), ("zzz", "first2015scaled")):
        (root / f"papers/attention/{name}.md").write_text(PLAIN.replace("third2013plain", key))
    with (root / "references.bib").open("a") as file:
        file.write("@book{late2018x, title={L}, author={L, L}, year={2018}}\n")
        file.write("@book{early2010x, title={E}, author={E, E}, year={2010}}\n")
    (root / "papers/nofamily").mkdir()
    (root / "papers/nofamily/x.md").write_text(PLAIN)
    project = Project(root)
    names = ["words/plain", *(f"attention/{n}" for n in ("bbb", "scaled", "zzz", "aaa", "ccc"))]
    assert [note.name for note in project.notes] == [*names, "adaptation/adapter", "nofamily/x"]


def test_finds_notes_by_key_module_and_path(root):
    project = Project(root)
    note = project.by_key["first2015scaled"]
    assert project.by_module["zoo.attention.scaled"] is note
    assert project.by_path[root / "papers/attention/scaled.md"] is note
    assert set(project.by_module) == {"zoo.attention.scaled", "zoo.adaptation.adapter", "zoo.words.plain"}


def test_lineage(root):
    project = Project(root)
    assert [note.key for note in project.built_on_by("first2015scaled")] == ["second2019adapter"]
    assert project.built_on_by("second2019adapter") == []
    edit(root / "papers/words/plain.md", "builds_on: []", "builds_on: [first2015scaled]")
    assert [note.key for note in Project(root).built_on_by("first2015scaled")] == [
        "third2013plain",
        "second2019adapter",
    ]
    assert project.published("first2015scaled")[0] == 2015
    assert project.published("unknown2000x") > project.published("second2019adapter")


def test_paths_as_problems_name_them(root, tmp_path_factory):
    project = Project(root)
    assert str(project.relative(root / "papers/attention/scaled.md")) == "papers/attention/scaled.md"
    outside = tmp_path_factory.mktemp("outside") / "x.md"
    assert project.relative(outside) == outside
