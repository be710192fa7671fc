import pytest

from papercode.site.check import check, pages, public_names
from papercode.site.project import Project
from tiny import edit, line_of


@pytest.fixture
def problems(root, katex):
    """`file:line: message` of what the check says of the tiny project, or of one of its pages."""

    def find(*names, run=False):
        paths = [root / name for name in names] or None
        return [str(problem) for problem in check(Project(root), paths, run=run)]

    cache = Project(root).cache
    cache.mkdir(parents=True)
    (cache / katex.name).symlink_to(katex)
    return find


def only(found):
    assert len(found) == 1, found
    return found[0]


def test_a_good_project_has_no_problems(problems, root):
    assert problems() == []
    assert pages(Project(root)) == [
        root / name
        for name in (
            "papers/words/plain.md",
            "papers/attention/scaled.md",
            "papers/adaptation/adapter.md",
            "docs/index.md",
        )
    ]


def test_a_failing_snippet(problems, root):
    edit(root / "docs/index.md", "\n2\n", "\n3\n")
    assert only(problems(run=True)).startswith("docs/index.md:8: snippet mismatch\nExpected:\n    3\nGot:\n    2")
    assert problems(run=False) == []


def test_an_unknown_citation(problems, root):
    edit(root / "docs/index.md", "# A tiny project\n", "# A tiny project\n\nSee @other2020x and `@code2020x`.\n")
    assert only(problems()) == (
        "docs/index.md:7: unknown citation key @other2020x: add it to references.bib or correct it"
    )


def test_an_unknown_key_in_front_matter(problems, root):
    path = root / "papers/words/plain.md"
    edit(path, "builds_on: []", "builds_on: [other2020x]")
    assert only(problems()) == "papers/words/plain.md:4: front matter `builds_on`: other2020x is not in references.bib"
    edit(path, "builds_on: [other2020x]", "builds_on: []")
    edit(path, "key: third2013plain", "key: other2020x")
    assert only(problems()) == "papers/words/plain.md:2: front matter `key`: other2020x is not in references.bib"


def test_a_module_that_does_not_exist(problems, root):
    edit(root / "papers/words/plain.md", "zoo.words.plain", "zoo.words.plane")
    assert only(problems()) == (
        "papers/words/plain.md:3: front matter `module`: there is no zoo.words.plane below src/"
    )


def test_front_matter_and_headings(problems, root):
    path = root / "papers/words/plain.md"
    edit(path, "builds_on: []", "builds: []")
    edit(path, "### Evidence\n", "### Proof\n")
    found = problems()
    assert [problem.split(": ")[0] for problem in found] == [
        "papers/words/plain.md:1",
        "papers/words/plain.md:4",
        f"papers/words/plain.md:{line_of(path, '### Proof')}",
        f"papers/words/plain.md:{len(path.read_text().splitlines())}",
    ]
    assert "front matter lacks `builds_on:`" in found[0]
    assert "unknown entry `builds`" in found[1]
    assert "unknown heading `### Proof`" in found[2]
    assert "missing heading `### Evidence`" in found[3]


def test_two_notes_of_one_paper(problems, root):
    edit(root / "papers/words/plain.md", "key: third2013plain", "key: first2015scaled")
    found = only(problems())
    assert found in (
        "papers/attention/scaled.md:2: first2015scaled already has a note, papers/words/plain.md",
        "papers/words/plain.md:2: first2015scaled already has a note, papers/attention/scaled.md",
    )


def test_a_duplicate_key_and_a_broken_entry_in_the_bibliography(problems, root):
    with (root / "references.bib").open("a") as file:
        file.write("\n@article{first2015scaled,\n  title = {T}, author = {A, B}, year = {2015}\n}\n")
        file.write("@article{broken2020x\n  title = {T}\n}\n")
    first, second = problems()
    assert first.startswith("references.bib:22: first2015scaled: the key is already used on line 1")
    assert second.startswith("references.bib:25: this entry cannot be read; look for a missing brace, comma or `=`")
    assert problems("papers/words/plain.md") == []  # the bibliography belongs to the whole


def test_a_public_name_that_the_note_never_mentions(problems, root):
    source = root / "src/zoo/words/plain.py"
    with source.open("a") as file:
        file.write(
            "\n\nclass Fancy:\n    pass\n\n\ndef _private():\n    pass\n\n\nasync def later():\n    pass\n\n\nx = 1\n"
        )
    assert public_names(Project(root), "zoo.words.plain") == ["plain", "Fancy", "later"]
    assert problems() == [
        f"papers/words/plain.md:3: the note never mentions zoo.words.plain.{name}" for name in ("Fancy", "later")
    ]
    edit(root / "papers/words/plain.md", "`plain` is a word.", "`plain` is a `Fancy` word, sooner or later.")
    assert problems() == []
    edit(root / "papers/words/plain.md", "`Fancy`", "`Fancyful`")
    assert "Fancy" in only(problems())


def test_a_module_that_is_not_python(problems, root):
    (root / "src/zoo/words/plain.py").write_text('"""Doc."""\n\ndef plain(:\n    pass\n')
    assert only(problems()) == "src/zoo/words/plain.py:3: SyntaxError: invalid syntax"


def test_what_is_still_to_be_done(problems, root):
    edit(root / "papers/words/plain.md", "`plain` is a word.", "`plain`: TODO say more.")
    edit(root / "references.bib", "{A Plain Paper}", "{TODO}")
    (root / "tests/words").mkdir(parents=True)
    (root / "tests/words/test_plain.py").write_text("# TODO test\n")
    line = line_of(root / "papers/words/plain.md", "TODO")
    assert problems() == [
        f"papers/words/plain.md:{line}: still to be done: TODO say more.",
        "references.bib:16: still to be done: TODO},",
        "tests/words/test_plain.py:1: still to be done: TODO test",
    ]


def test_fences_and_formulas(problems, root):
    path = root / "papers/words/plain.md"
    edit(path, "About method of Plain.", 'A $\\frac{1}{2$ formula.\n\ntext\n$$\nx\n$$\n\n```sh exec="on"\nls\n```')
    lines = [line_of(path, text) for text in ("A $", "$$", "```sh")]
    found = problems()
    assert [int(problem.split(":")[1]) for problem in found] == lines
    assert "KaTeX cannot read this formula" in found[0]
    assert "put a blank line before the opening $$" in found[1]
    assert "cannot run 'sh'" in found[2]
