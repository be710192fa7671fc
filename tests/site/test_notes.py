import datetime

import pytest

from papercode.site.notes import FAMILIES, HEADINGS, body_lines, front_matter, load_note
from tiny import ADAPTER, SCALED, edit, line_of

FRONT = "---\nkey: a2020b\nmodule: zoo.x\nbuilds_on: []\n---\n"


@pytest.fixture
def note(tmp_path):
    """Writes a note and reads it."""

    def write_and_load(text=SCALED, name="attention/scaled"):
        path = tmp_path / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return load_note(path)

    return write_and_load


def problems(note):
    assert all(problem.path == note.path for problem in note.problems)
    return [(problem.line, problem.message) for problem in note.problems]


def test_reads_a_note(note, tmp_path):
    found = note(ADAPTER, "adaptation/adapter")
    assert found.problems == []
    assert found.path == tmp_path / "adaptation/adapter.md"
    assert (found.family, found.name, found.title) == ("adaptation", "adaptation/adapter", "Adapter")
    assert (found.key, found.modules, found.builds_on) == (
        "second2019adapter",
        ["zoo.adaptation.adapter"],
        ["first2015scaled"],
    )
    assert found.text == ADAPTER


def test_a_note_may_be_about_several_modules_and_set_what_is_optional(note):
    text = SCALED.replace("module: zoo.attention.scaled", "module: [zoo.b, zoo.a]")
    extra = "time_limit: 20.5\nreading: first pass\ntags: [a, b]\nsearch:\n  exclude: true\n"
    found = note(text.replace("---\n\n#", f"{extra}---\n\n#", 1))
    assert found.problems == []
    assert found.modules == ["zoo.b", "zoo.a"]
    assert found.meta["time_limit"] == 20.5


# front matter


def test_missing_front_matter(note):
    text = SCALED.split("---\n", 2)[2]
    [problem] = note(text).problems
    assert (problem.line, problem.message) == (
        1,
        "front matter is missing: begin with `---`, `key:`, `module:` and `builds_on:` lines, `---`",
    )
    found = note(text)
    assert (found.key, found.modules, found.builds_on, found.title) == ("", [], [], "Scaled")


@pytest.mark.parametrize("name", ["key", "module", "builds_on"])
def test_an_entry_that_is_missing(note, name):
    text = "\n".join(line for line in SCALED.split("\n") if not line.startswith(f"{name}:"))
    [problem] = note(text).problems
    assert problem.line == 1
    assert problem.message.startswith(f"front matter lacks `{name}:`")


@pytest.mark.parametrize(
    ("old", "new", "must_be"),
    [
        ("key: first2015scaled", "key:", "key` must be the paper's key in references.bib; got None"),
        ("key: first2015scaled", "key: 2015", "key` must be the paper's key in references.bib; got 2015"),
        ("key: first2015scaled", "key: ''", "key` must be the paper's key in references.bib; got ''"),
        ("module: zoo.attention.scaled", "module: {a: b}", "module` must be a dotted name, or a list of them; got {'a"),
        ("module: zoo.attention.scaled", "module: [1]", "module` must be a dotted name, or a list of them; got [1]"),
        ("builds_on: []", "builds_on: a", "builds_on` must be a list of keys, [] if there is none; got 'a'"),
        ("builds_on: []", "builds_on:", "builds_on` must be a list of keys, [] if there is none; got None"),
        ("builds_on: []", "builds_on: [2017]", "builds_on` must be a list of keys, [] if there is none; got [2017]"),
        ("builds_on: []", "builds_on: [a: b]", "builds_on` must be a list of keys, [] if there is none; got [{'a"),
        ("builds_on: []", "builds_on: []\ntags: a", "tags` must be a list of texts; got 'a'"),
        ("builds_on: []", "builds_on: []\nreading: [a]", "reading` must be a text; got ['a']"),
        ("builds_on: []", "builds_on: []\nsearch: no", "search` must be `name: value` pairs; got False"),
        *(
            ("builds_on: []", f"builds_on: []\ntime_limit: {value}", "time_limit` must be a number of seconds above 0")
            for value in ("true", "0", "-1", ".inf", ".nan", "ten")
        ),
    ],
)
def test_an_entry_that_is_wrong(note, old, new, must_be):
    found = note(SCALED.replace(old, new, 1))
    line = line_of(found.path, new.split("\n")[-1])
    [(where, message)] = problems(found)
    assert where == line
    assert message.startswith(f"front matter `{must_be}")
    name = new.split("\n")[-1].split(":")[0]
    assert name not in found.meta  # nobody stumbles over it
    assert isinstance(found.key, str)
    assert isinstance(found.modules + found.builds_on, list)


def test_an_entry_that_is_unknown(note):
    found = note(SCALED.replace("builds_on: []", "builds_on: []\nbuild_on: [x]\n2017: y"))
    first, second = problems(found)
    assert first[0] == 5
    assert first[1].startswith("front matter has an unknown entry `build_on`; known are key, module, builds_on")
    assert second[0] == 6


def test_front_matter_that_is_not_yaml(note):
    found = note(SCALED.replace("module: zoo.attention.scaled", "module: [zoo"))
    [(line, message)] = problems(found)
    assert line == 4  # YAML notices it one line later
    assert message.startswith("front matter is not YAML: ")
    assert found.meta == {}


def test_front_matter_that_is_no_mapping(note):
    found = note("---\n- key\n---\n" + SCALED.split("---\n", 2)[2])
    assert problems(found) == [(1, "front matter must be `name: value` lines, got list")]


@pytest.mark.parametrize(
    ("text", "meta", "lines"),
    [
        (FRONT + "text", {"key": "a2020b", "module": "zoo.x", "builds_on": []}, 5),
        ("text\n" + FRONT, {}, 0),
        ("---\nkey: a\n", {}, 0),
        ("---\n---\n", {}, 2),
        ("---\ndate: 2017-06-12\n---\n---\n", {"date": datetime.date(2017, 6, 12)}, 3),
    ],
)
def test_front_matter_and_its_length(text, meta, lines):
    assert front_matter(text) == (meta, lines)


# place and headings


def test_an_unknown_family(note):
    [(line, message)] = problems(note(name="atention/scaled"))
    assert line == 1
    assert message.startswith("unknown family 'atention': move it to one of words, tokens, ")
    assert all(note(name=f"{family}/x").problems == [] for family in FAMILIES)


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_missing_heading(note, heading):
    """Each is missed, at the end of the note, where there is nothing to point at."""
    lines = SCALED.split("\n")
    at = lines.index(heading)
    found = note("\n".join(lines[:at] + lines[at + 1 :]))
    missing = [(line, message) for line, message in problems(found) if message.startswith("missing")]
    assert missing == [(len(lines) - 2, f"missing heading `{heading}`")]


def test_headings_out_of_order_unknown_and_twice(note):
    text = SCALED.replace("### Problem", "### X").replace("### Method", "### Problem").replace("### X", "### Method")
    found = note(text)
    assert problems(found) == [(line_of(found.path, "### Problem"), "heading `### Problem` is out of order")]

    found = note(SCALED.replace("### Evidence", "### Proof\n\nText.\n\n### Evidence"))
    [(line, message)] = problems(found)
    assert line == line_of(found.path, "### Proof")
    assert message.startswith("unknown heading `### Proof`; own headings start at level 4")

    found = note(SCALED.replace("### Evidence", "### Method\n\nText.\n\n### Evidence"))
    [(line, message)] = problems(found)
    first = line_of(found.path, "### Method")
    assert message == f"heading `### Method` stands already on line {first}"
    assert line > first


def test_nothing_under_a_heading(note):
    found = note(SCALED.replace("About evidence of Scaled.\n", ""))
    assert problems(found) == [(line_of(found.path, "### Evidence"), "nothing stands under `### Evidence`")]
    found = note(SCALED.rstrip("\n").rsplit("\n", 1)[0] + "\n")
    last = "### Where it breaks, and ideas"
    assert problems(found) == [(line_of(found.path, last), f"nothing stands under `{last}`")]


def test_the_name(note):
    found = note(SCALED.replace("# Scaled\n", ""))
    assert problems(found)[0] == (1, "a note has one `# Name` heading, this one has 0")
    assert found.title == "scaled"
    found = note(SCALED.replace("### Evidence", "# Again\n\nText.\n\n### Evidence"))
    assert problems(found)[0] == (
        line_of(found.path, "# Again"),
        "a note has one `# Name` heading, this one has 2",
    )
    assert found.title == "Scaled"


def test_what_only_looks_like_a_heading(note):
    text = SCALED.replace("---\n\n#", "# a comment\n---\n\n```python\n# code\n## code\n```\n\n#", 1)
    found = note(text.replace("#### ", "").replace("### Evidence", "#### Deeper\n\nText.\n\n### Evidence"))
    assert found.problems == []
    assert found.title == "Scaled"
    kept = body_lines(found.text)
    assert len(kept) == len(found.text.split("\n"))
    assert not any("comment" in line or "code" in line for line in kept)


def test_headings_may_have_attributes_and_closing_marks(note):
    found = note(SCALED.replace("### Evidence", "### Evidence ### {#proof}"))
    assert found.problems == []


def test_lines_are_counted_as_an_editor_does(note):
    found = note(SCALED.replace("About evidence", "A form feed \x0c about evidence").replace("### Questions", "### Q"))
    assert problems(found)[0][0] == line_of(found.path, "### Q")
    edit(found.path, "### Q\n", "### Questions\n")
    assert load_note(found.path).problems == []
