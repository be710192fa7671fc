"""The home page: its path can be walked, its questions are asked in the notes, its numbers are the collection's."""

import re

import pytest

from papercode.site.check import check
from papercode.site.fences import fences
from papercode.site.home import fill, minutes, problems
from papercode.site.marked import marked
from papercode.site.notes import load_note
from papercode.site.project import Project
from tiny import ROOT, edit

HOME = ROOT / "docs/index.md"
TEXT = HOME.read_text("utf-8")


@pytest.fixture(scope="module")
def project():
    return Project(ROOT)


def section(heading):
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)[1]


def path_of_ten():
    return re.findall(
        r"^\d+\. \[.*?\]\(papers/(.*?)\.md\) <!-- papercode minutes (.*?) -->$", section("Start here"), re.M
    )


def test_ten_papers_with_a_note_are_the_path(project):
    names = [name for name, _ in path_of_ten()]
    assert len(set(names)) == 10
    assert set(names) <= {note.name for note in project.notes}
    assert [timed for _, timed in path_of_ten()] == names
    assert f"<!-- papercode minutes {' '.join(names)} -->" in TEXT  # the sum


def test_on_the_path_no_paper_comes_before_one_that_it_builds_on(project):
    notes = {note.name: note for note in project.notes}
    path = [notes[name].key for name, _ in path_of_ten()]

    def ancestors(key, seen):
        paper = project.collection[key]
        for other in {*paper.builds_on, *paper.imports} - seen:
            seen.add(other)
            ancestors(other, seen)
        return seen

    for place, key in enumerate(path):
        assert not ancestors(key, set()) & set(path[place + 1 :]), key
    # and it is one path: all but the first stand on something before them
    assert [key for key in path if not ancestors(key, set()) & set(path)] == path[:1]


def test_questions_are_asked_in_the_notes_that_they_lead_to():
    found = re.findall(r'^- \[(.+?)\]\((papers/.+?\.md)#([\w-]+)(?: "(.+)")?\)$', section("By question"), re.M)
    assert len(found) == section("By question").count("\n- ") >= 10
    for question, file, anchor, title in found:
        assert question.endswith("?")
        asked = {item.title: item.anchor for item in marked((ROOT / file).read_text("utf-8"))}
        if title:
            assert asked[title] == anchor, question
        else:
            assert anchor == "claim-checked", question


def test_the_example_is_run_and_comes_first():
    first = next(fences(TEXT))
    assert first.language == "pycon"
    assert first.executed
    assert first.code.count("\n0.75\n") == 2
    assert TEXT.index(first.code.split("\n")[0]) < TEXT.index("## Start here")


def test_numbers_are_the_collections(project):
    text = fill(TEXT, "index.md", project)
    papers = project.collection.values()
    assert not list(problems(HOME, TEXT, project))
    assert "<!-- papercode" not in text
    assert f"notes on {sum(p.reviewed for p in papers)} NLP papers" in text
    assert f"{sum(p.parity for p in papers)} of them against an independent one" in text
    families = re.findall(r'#family=(\w+)\) <span class="home-n">(\d+) papers?(?:, (\d+) notes?)?<', text)
    for family, total, notes in families:
        assert int(total) == sum(p.family == family for p in papers)
        assert int(notes or 0) == sum(p.family == family and p.reviewed for p in papers)
    assert sum(int(total) for _, total, _ in families) == len(papers)
    years = re.findall(r'\[(\d{4}) <span class="home-n">(\d+)</span>\]\(papers/index.md#year=(\d{4})\)', text)
    assert sum(int(number) for _, number, _ in years) == len(papers)
    assert all(shown == linked for shown, _, linked in years)


def note_of(tmp_path, text):
    path = tmp_path / "words/x.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return load_note(path)


def test_a_note_takes_as_long_as_its_passes_rounded_to_5(tmp_path):
    heading = "## Third pass — rebuild it"
    known = {2200: 10, 4400: 20, 1: 5}
    assert {n: minutes(note_of(tmp_path, f"# X\n\n{heading}\n\n{'word ' * n}\n")) for n in known} == known


def test_times_add_up(project):
    notes = {note.name: note for note in project.notes}
    one, two = (f"{minutes(notes[name])} min" for name in ("recurrent/lstm", "decoders/gpt"))
    text = "<!-- papercode minutes recurrent/lstm --> <!-- papercode minutes decoders/gpt -->"
    assert re.findall(r">(.*?)<", fill(text, "index.md", project)) == [one, " ", two]
    total = sum(minutes(notes[name]) for name, _ in path_of_ten())
    every = f"<!-- papercode minutes {' '.join(name for name, _ in path_of_ten())} -->"
    assert f">{total / 60:.0f} hours<" in fill(every, "index.md", project)


def test_what_is_asked_for_and_unknown_is_a_problem_with_its_line(root):
    path = root / "docs/index.md"
    wrong = ["<!-- papercode famlies -->", "<!-- papercode minutes words/none -->", "<!-- papercode minutes -->"]
    path.write_text("---\ntitle: x\n---\n# X\n\n" + "\n".join([*wrong, "<!-- papercode notes -->", "<!-- other -->"]))
    found = list(problems(path, path.read_text(), Project(root)))
    assert [problem.line for problem in found] == [6, 7, 8]
    assert str(found[0].message).startswith(
        "`<!-- papercode famlies -->` asks for nothing that is known; known are papers, "
    )
    assert fill(path.read_text(), "index.md", Project(root)).endswith("\n".join([*wrong, "3", "<!-- other -->"]))


@pytest.mark.parametrize(
    ("pretty", "link"), [(True, "papers/#family=words"), (False, "papers/index.html#family=words")]
)
def test_links_to_states_are_checked_and_work_with_both_kinds_of_addresses(site, pretty, link):
    edit(
        site.root / "docs/index.md",
        "# A tiny project\n",
        "# A tiny project\n\n<!-- papercode families -->\n<!-- papercode years -->\n",
    )
    built = site.build(use_directory_urls=pretty)
    html = (built.folder / "index.html").read_text("utf-8")
    assert built.warnings == []
    assert f'href="{link}"' in html
    assert 'id="family=words"' in (built.folder / "papers/index.html").read_text("utf-8")
    edit(site.root / "docs/index.md", "# A tiny project\n", "# A tiny project\n\n[x](papers/index.md#year=1900)\n")
    assert any("year=1900" in warning for warning in site.build(use_directory_urls=pretty).warnings)


def test_an_unknown_comment_is_reported_by_build_and_check(site):
    edit(site.root / "docs/index.md", "# A tiny project\n", "# A tiny project\n\n<!-- papercode famlies -->\n")
    [warning] = site.build().warnings
    assert warning.startswith("docs/index.md:7: `<!-- papercode famlies -->` asks for nothing")
    [problem] = check(Project(site.root), [site.root / "docs/index.md"], run=False)
    assert str(problem) == warning


def test_the_built_page_leaves_no_comment_and_leads_to_states_that_exist(whole_site):
    html = (whole_site / "index.html").read_text("utf-8")
    catalogue = (whole_site / "papers/index.html").read_text("utf-8")
    assert "<!-- papercode" not in html
    states = re.findall(r'href="papers/#([\w=]+)"', html)
    assert len(states) > 30
    assert not [name for name in states if f'id="{name}"' not in catalogue]
