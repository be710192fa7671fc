"""The glossary, and the Chinese words that the search learns."""

import jieba
import pytest

from papercode.site.chinese import LEFT_OUT, teach
from papercode.site.glossary_page import glossary_page
from papercode.site.header import header
from papercode.site.project import Project
from tiny import ROOT, edit


@pytest.fixture
def project(root):
    edit(root / "papers/attention/scaled.md", "contribution:", "terms: {Scale: 缩放, a | b: 甲}\ncontribution:")
    edit(root / "papers/words/plain.md", "contribution:", "terms: {scale: 比例, plain word: 词}\ncontribution:")
    return Project.find(root)


def test_a_term_stands_once_with_all_its_notes_the_oldest_first(project):
    page = glossary_page(project)
    assert "The 3 terms" in page
    assert [line.partition('"')[2].partition('"')[0] for line in page.split("\n") if line.startswith("<tr id")] == [
        "a-b",
        "plain-word",
        "scale",
    ]
    row = next(line for line in page.split("\n") if 'id="scale"' in line)
    assert '<td lang="zh" markdown="span">比例、缩放</td>' in row
    assert "[Plain](papers/words/plain.md) · [Scaled](papers/attention/scaled.md)" in row


def test_terms_are_text(project):
    assert '<td markdown="span">a &#124; b</td>' in glossary_page(project)


def test_the_header_of_a_note_has_its_terms_in_both_languages(project):
    block = header(project.by_key["third2013plain"], project, "")
    assert '<dt>Terms</dt>\n<dd markdown="span">scale <span lang="zh">比例</span> · plain word' in block


def test_what_the_search_leaves_out_is_kept_with_what_follows():
    terms = ["自注意力", "注意力机制", "自"]
    assert teach(terms) == ["自注意力"]
    assert list(jieba.cut("自注意力机制")) == ["自注意力", "机制"]
    assert list(jieba.cut("多头注意力")) == ["多头", "注意力"]  # whole terms are not learnt


def test_every_term_of_the_glossary_can_be_found():
    """No term is cut into pieces of which one is left out of the index."""
    terms = [chinese for note in Project.find(ROOT).notes for chinese in note.terms.values()]
    teach(terms)
    assert len(terms) > 90
    assert {term: pieces for term in terms if LEFT_OUT & set(pieces := list(jieba.cut(term)))} == {}
