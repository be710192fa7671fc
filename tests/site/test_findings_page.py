"""What authors mark in notes, and the pages that gather it."""

import json
import re

import pytest

from papercode.site.check import text_problems
from papercode.site.findings_page import findings_pages
from papercode.site.header import plain
from papercode.site.marked import Numbers, marked, marked_problems, with_anchors
from papercode.site.moved import LONG, moved
from papercode.site.project import Project
from tiny import ROOT, block, edit, line_of

NOTE = block("""
    ---
    key: x
    ---

    # X

    !!! finding "It is 4, not 5"

        | What | The paper | Here | Why |
        | --- | --- | --- | --- |
        | a sum | 5 (Table 1) | 4 | a slip |
        | a `a\\|b` | $5$ | 4 | |

        The paper adds twice.

        ```text
        !!! finding "In code"

            Not one.
        ```

    Text.

    ??? question "Why $x^2$?"

        Because.

        !!! mistake "It is 4, not 5"

            Nested.

    !!! note "Of another kind"

        Is left alone.

    ```text
    !!! mistake "In a fence"

        Is none.
    ```

    ??? question "Why $x^2$?"

        Again.
    """)


def test_marked_reads_kind_title_body_and_line():
    found = [(item.kind, item.title, item.line) for item in marked(NOTE)]
    assert found == [
        ("finding", "It is 4, not 5", 7),
        ("question", "Why $x^2$?", 24),
        ("mistake", "It is 4, not 5", 28),
        ("question", "Why $x^2$?", 42),
    ]
    finding, question, mistake, _ = marked(NOTE)
    assert finding.body.startswith("| What |")
    assert finding.body.endswith('!!! finding "In code"\n\n    Not one.\n```')
    assert question.body == 'Because.\n\n!!! mistake "It is 4, not 5"\n\n    Nested.'
    assert mistake.body == "Nested."


def test_addresses_are_made_of_titles_and_differ():
    assert [item.anchor for item in marked(NOTE)] == [
        "finding-it-is-4-not-5",
        "question-why-x2",
        "mistake-it-is-4-not-5",
        "question-why-x2-2",
    ]
    (long,) = marked(f'!!! finding "{"word " * 30}"\n\n    Body.\n')
    assert long.anchor == "finding-" + "-".join(["word"] * 12)
    assert [item.anchor for item in marked('!!! mistake "错误"\n\n    A.\n\n!!! mistake "错"\n\n    B.\n')] == [
        "mistake",
        "mistake-2",
    ]


def test_with_anchors_changes_titles_and_nothing_else():
    anchored = with_anchors(NOTE)
    assert len(re.findall(r'"<span id="[^"]+"></span>', anchored)) == 4
    assert re.sub(r'<span id="[^"]+"></span>', "", anchored) == NOTE
    assert '\n    !!! mistake "<span id="mistake-it-is-4-not-5"></span>It is 4, not 5"\n' in anchored


def test_numbers_are_the_rows_of_the_table():
    finding, question, *_ = marked(NOTE)
    assert finding.numbers == [
        Numbers("a sum", "5 (Table 1)", "4", "a slip"),
        Numbers("a `a\\|b`", "$5$", "4", ""),
    ]
    assert question.numbers == []
    (other,) = marked('!!! finding "A"\n\n    | a | b |\n    | --- | --- |\n    | 1 | 2 |\n')
    assert other.numbers == []
    (short,) = marked(
        '!!! finding "A"\n\n    | The paper | Here |\n    | --- | --- |\n    | 1 | 2 |\n\n    | 3 | 4 |\n'
    )
    assert short.numbers == [Numbers("", "1", "2", "")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n!!! finding\n\n    Body.\n", 2, "this finding needs a title"),
        ('!!! mistake ""\n\n    Body.\n', 1, "this mistake needs a title"),
        ('??? question "Open\n\n    Body.\n', 1, "this question needs a title"),
        ('!!! finding "A"\n\nBody at the margin.\n', 1, "this finding says nothing: indent"),
        ('A\n\n??? question "B"\n', 3, "this question says nothing"),
    ],
)
def test_malformed_marks_are_reported(text, line, message):
    (problem,) = marked_problems("note.md", text)
    assert problem.line == line
    assert problem.message.startswith(message)


def test_well_formed_marks_are_not_reported(root):
    assert list(marked_problems("note.md", NOTE)) == []
    path = root / "papers/adaptation/adapter.md"
    assert list(text_problems(Project.find(root), path)) == []
    edit(path, '??? question "Does `adapted` add one?"', "??? question")
    (problem,) = text_problems(Project.find(root), path)
    assert (problem.path, problem.line) == (path, line_of(path, "??? question"))


def take(body):
    return moved(block(body).rstrip("\n"), "papers/a/x.md", "findings.md", "papers/a/x.md#there")


def test_links_lead_where_they_led():
    assert take("[a](y.md) [b](../b/z.md#part) [c](#here) ![d](d.svg)") == (
        "[a](papers/a/y.md) [b](papers/b/z.md#part) [c](papers/a/x.md#here) ![d](papers/a/d.svg)"
    )
    assert take("[a](../../reading.md)") == "[a](reading.md)"
    same = "[a](https://example.org/x.md) [b][papercode.x] @key2020word `[c](y.md)`"
    assert take(same) == same


def test_claims_are_shown_and_do_not_run_again():
    assert take('''
        Text:

        ```pycon exec="on" hl_lines="1"
        >>> "[a](y.md)"
        '[a](y.md)'
        ```
        ''') == "Text:\n\n```pycon\n>>> \"[a](y.md)\"\n'[a](y.md)'\n```"  # fmt: skip


def test_long_code_and_figures_stay_in_the_note():
    code = "\n".join(f">>> {n}" for n in range(LONG + 1))
    assert moved(f'```pycon exec="on"\n{code}\n```', "a.md", "b.md", "a.md#there") == (
        f"\n[{LONG + 1} lines of code](a.md#there) are in the note.\n"
    )
    short = code.rpartition("\n")[0]
    assert moved(f'```pycon exec="on"\n{short}\n```', "a.md", "b.md", "a.md#there") == f"```pycon\n{short}\n```"
    assert take('''
        - item

            ```python exec="on" html="on" title="Figure 3. A line." alt="A line."
            print("<svg>")
            ```
        ''') == "- item\n\n\n    [Figure 3](papers/a/x.md#there) is in the note.\n"  # fmt: skip


def test_footnotes_and_ids_do_not_clash():
    assert take("Said.[^1] A `[^1]` word.{ #mark }\n\n[^1]: By whom.") == "Said. A `[^1]` word.{}\n\n"


@pytest.fixture
def pages(root):
    note = root / "papers/attention/scaled.md"
    table = "    | The paper | Here | Why |\n    | --- | --- | --- |\n    | 3 | 2 | a slip |\n"
    finding = f'!!! finding "Doubled, not tripled"\n\n{table}'
    edit(note, "### Claim checked\n", f"### Claim checked\n\n{finding}\n")
    return findings_pages(Project.find(root))


def test_each_kind_has_its_page(pages):
    assert list(pages) == ["findings.md", "mistakes.md", "questions.md"]
    assert '??? finding "Doubled, not tripled"\n' in pages["findings.md"]
    assert '??? question "Does `adapted` add one?"\n' in pages["questions.md"]
    assert "Does `adapted`" not in pages["findings.md"]
    assert "??? " not in pages["mistakes.md"]
    assert "0 from 0 notes" in pages["mistakes.md"]


def test_an_item_leads_to_its_place(pages):
    anchor = "papers/adaptation/adapter.md#question-does-adapted-add-one"
    assert f"[In the note on Adapter]({anchor})" in pages["questions.md"]
    assert pages["questions.md"].index("## Adaptation") < pages["questions.md"].index("### Adapter")


def test_numbers_stand_first(pages):
    page = pages["findings.md"]
    row = re.search(r'<tr data-family="attention".*</tr>', page)[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == [
        "[Scaled](papers/attention/scaled.md#finding-doubled-not-tripled)",
        "Doubled, not tripled",
        "3",
        "2",
        "a slip",
    ]
    assert page.index("marked-numbers") < page.index("## Attention")
    assert "marked-numbers" not in pages["questions.md"]


def test_the_search_finds_the_notes_and_not_their_copies(pages):
    for page in pages.values():
        headings = re.findall(r"^##+ .*$", page, re.MULTILINE)
        assert all(heading.endswith("{ data-search-exclude }") for heading in headings)


def test_the_search_puts_notes_before_modules_and_knows_gathered_pages_by_their_titles(base):
    index = json.loads((base.folder / "search/search_index.json").read_text("utf-8"))
    boosts = {entry["location"]: entry.get("boost") for entry in index["docs"]}
    assert boosts["papers/attention/scaled/"] == 3
    assert boosts["api/attention/scaled/"] == 0.5
    assert boosts["papers/"] == 1
    assert [place for place in boosts if place.startswith("questions/")] == ["questions/"]
    (note,) = (entry for entry in index["docs"] if entry["location"] == "papers/attention/scaled/")
    assert "first2015scaled" in note["text"]  # the key, and no more of the BibTeX
    assert "@article" not in note["text"]


def test_the_collection_gathers_all_that_its_notes_mark():
    project = Project.find(ROOT)
    pages = findings_pages(project)
    for kind, page in (("finding", "findings.md"), ("mistake", "mistakes.md"), ("question", "questions.md")):
        count = sum(item.kind == kind for note in project.notes for item in marked(note.text))
        assert count > 100
        assert len(re.findall(rf'^\?\?\? {kind} "', pages[page], re.MULTILINE)) == count
        notes = sum(f'??? {kind} "' in pages[page].partition(f"### {plain(n.title)} {{")[2][:99] for n in project.notes)
        assert f" {count} from {notes} notes" in pages[page]
    assert pages["findings.md"].count("<tr data-family") >= 50
    assert 'exec="on"' not in "".join(pages.values())
