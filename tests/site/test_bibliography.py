import logging
import re
import unicodedata
from pathlib import Path

import pytest

from papercode.site.bibliography import Bibliography, load_bibliography
from papercode.site.entry import Entry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def load(tmp_path):
    def write_and_load(text):
        path = tmp_path / "references.bib"
        path.write_text(text, "utf-8")
        return load_bibliography(path)

    return write_and_load


@pytest.fixture
def entry(load):
    def one(fields, kind="article", key="doe2020x"):
        [found] = load(f"@{kind}{{{key},\n{fields}\n}}").values()
        return found

    return one


GOOD = "title = {T}, author = {Doe, Jane}, year = 2020"


def problems(bibliography):
    return [(p.line, p.message) for p in bibliography.problems]


# reading


def test_reads_an_entry(entry):
    found = entry(
        r"  title = {{BERT}: Pre-training},"
        "\n"
        r"  author = {M{\"u}ller, J\"org and Li, Xiang Lisa},"
        "\n  journal = {Neural Computation},\n  volume = {9}, number = {8}, pages = {1735--1780},\n  year = {1997},",
        key="muller1997bert",
    )
    assert (found.key, found.type, found.year, found.line) == ("muller1997bert", "article", 1997, 1)
    assert found.title == "BERT: Pre-training"
    assert found.authors == (("Jörg", "Müller"), ("Xiang Lisa", "Li"))
    assert found.venue == "Neural Computation"
    assert found.fields["volume"] == "9"
    assert found.source == "Neural Computation 9(8), pages 1735–1780"
    assert found.bibtex.startswith("@article{muller1997bert,\n")
    assert r"M{\"u}ller" in found.bibtex
    assert found.bibtex.endswith("}")


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"{\L}ukasz and \'Etienne", "Łukasz and Étienne"),
        (r"Attention \& {Memory}", "Attention & Memory"),
        ("R&D of 50% of it", "R&D of 50% of it"),
        (r"Cost $O(n^2)$ and $\mathcal{L}_{0}$ Norms", r"Cost $O(n^2)$ and $\mathcal{L}_{0}$ Norms"),
        ("a ---  b\n   c~d", "a — b c d"),
        (r"\emph{Very} Deep", "Very Deep"),
        ("Müller 注意力", "Müller 注意力"),
    ],
)
def test_latex_becomes_text(entry, tex, text):
    assert entry(f"title = {{{tex}}}, author = {{Doe, J.}}, year = 2020").title == text


def test_addresses_are_not_read_as_latex(entry):
    found = entry(GOOD + r", url = {https://example.org/a_b%20c#d~e\_f}, doi = {10.1000/x\_y}")
    assert found.fields["url"] == "https://example.org/a_b%20c#d~e_f"
    assert found.fields["doi"] == "10.1000/x_y"


def test_strings_and_windows_line_ends(tmp_path):
    path = tmp_path / "x.bib"
    path.write_bytes(b'\xef\xbb\xbf@string{nc = "Neural Computation"}\r\n\r\n@article{a2020x,\r\n title={T},\r\n')
    path.write_bytes(path.read_bytes() + b" author={A},\r\n journal = nc,\r\n year=2020}\r\n")
    bibliography = load_bibliography(path)
    assert bibliography.problems == []
    assert bibliography["a2020x"].venue == "Neural Computation"
    assert bibliography["a2020x"].line == 3
    assert "\r" not in bibliography["a2020x"].bibtex


# names


@pytest.mark.parametrize(
    ("authors", "text", "parenthesis"),
    [
        ("Keshav, S.", "Keshav (2020)", "Keshav, 2020"),
        ("Li, Xiang Lisa and Liang, Percy", "Li and Liang (2020)", "Li and Liang, 2020"),
        ("Ashish Vaswani and Noam Shazeer and Niki Parmar", "Vaswani et al. (2020)", "Vaswani et al., 2020"),
        ("Kaplan, Jared and others", "Kaplan et al. (2020)", "Kaplan et al., 2020"),
        (r"A{\"a}ron van den Oord", "van den Oord (2020)", "van den Oord, 2020"),
        ("van den Oord, Aaron and de Jong, M.", "van den Oord and de Jong (2020)", "van den Oord and de Jong, 2020"),
        ("{OpenAI and Friends}", "OpenAI and Friends (2020)", "OpenAI and Friends, 2020"),
        ("Ben Zaken, Elad", "Ben Zaken (2020)", "Ben Zaken, 2020"),
        ("Knuth, Jr., Donald", "Knuth Jr. (2020)", "Knuth Jr., 2020"),
    ],
)
def test_labels(entry, authors, text, parenthesis):
    found = entry(f"title = {{T}}, author = {{{authors}}}, year = 2020")
    assert found.label == text
    assert found.parenthetical == parenthesis


def test_editors_stand_in_for_authors(load):
    bibliography = load("@book{doe2020x, title = {T}, editor = {Doe, Jane}, year = 2020}")
    assert bibliography["doe2020x"].label == "Doe (2020)"
    assert bibliography.problems == []


def test_author_names(entry):
    found = entry("title = {T}, author = {van den Oord, Aaron and {OpenAI} and others}, year = 2020")
    assert found.author_names == ("Aaron van den Oord", "OpenAI", "others")
    assert found.et_al
    assert found.authors == (("Aaron", "van den Oord"), ("", "OpenAI"))


def test_papers_cited_alike_get_letters_oldest_first(load):
    bibliography = load(
        "@misc{liu2019late, title={B}, author={Liu, X and A and B}, year=2019, eprint={1907.11692}}\n"
        "@misc{liu2019soon, title={A}, author={Liu, Y and C and D}, year=2019, eprint={1901.11504}}\n"
        "@misc{liu2019c, title={C}, author={Liu, Y}, year=2019}\n"
        "@misc{liu2020a, title={D}, author={Liu, X and A and B}, year=2020}"
    )
    assert [e.label for e in bibliography.values()] == [
        "Liu et al. (2019b)",
        "Liu et al. (2019a)",
        "Liu (2019)",
        "Liu et al. (2020)",
    ]
    assert bibliography["liu2019soon"].parenthetical == "Liu et al., 2019a"


def test_letters_go_on_after_z():
    entries = {f"k{n:02}": Entry(f"k{n:02}", "misc", "T", (("", "X"),), 2020, "", {}, 1, "") for n in range(28)}
    found = [entry.suffix for entry in Bibliography(entries).values()]
    assert found[:2] + found[25:] == ["a", "b", "z", "aa", "ab"]


# references and links


def test_reference(entry):
    found = entry(
        'title = {Long Short-Term Memory}, author = {Hochreiter, Sepp and Schmidhuber, J{\\"u}rgen}, year = 1997,'
        "journal = {Neural Computation}, volume = 9, number = 8, pages = {1735--1780}"
    )
    assert found.reference == (
        "Sepp Hochreiter and Jürgen Schmidhuber (1997). Long Short-Term Memory. "
        "Neural Computation 9(8), pages 1735–1780."
    )


def test_reference_does_not_double_the_full_stop_and_names_one_page(entry):
    found = entry("title = {Why?}, author = {Doe, J.}, year = 2020, journal = {J. ACM}, pages = {7}")
    assert found.reference == "J. Doe (2020). Why? J. ACM, page 7."


def test_reference_of_very_many_authors_is_cut(entry):
    many = entry("title = {T}, year = 2020, author = {" + " and ".join(f"A{n}, B" for n in range(13)) + "}")
    assert "B A9 and 3 others (2020)" in many.reference
    assert "A10" not in many.reference
    twelve = entry("title = {T}, year = 2020, author = {" + " and ".join(f"A{n}, B" for n in range(12)) + "}")
    assert "B A10 and B A11 (2020)" in twelve.reference


def test_venue_falls_back_to_the_arxiv_number(entry):
    assert entry(GOOD + ", eprint = {1607.06450}, archivePrefix = {arXiv}", kind="misc").venue == "arXiv:1607.06450"
    assert entry(GOOD + ", eprint = {1607.06450}, booktitle = {ICML}", kind="misc").venue == "ICML"
    assert entry(GOOD + ", institution = {OpenAI}", kind="techreport").venue == "OpenAI"
    assert entry(GOOD).venue == ""


@pytest.mark.parametrize(
    ("fields", "links"),
    [
        ("eprint = {1706.03762v5}", [("arXiv", "https://arxiv.org/abs/1706.03762")]),
        ("eprint = {arXiv:1706.03762}", [("arXiv", "https://arxiv.org/abs/1706.03762")]),
        ("eprint = {cs/0112017}", [("arXiv", "https://arxiv.org/abs/cs/0112017")]),
        ("eprint = {12345}, archivePrefix = {PubMed}", []),
        ("doi = {10.1162/neco.1997.9.8.1735}", [("DOI", "https://doi.org/10.1162/neco.1997.9.8.1735")]),
        ("doi = {https://doi.org/10.1000/a<b>}", [("DOI", "https://doi.org/10.1000/a%3Cb%3E")]),
        ("url = {https://aclanthology.org/P16-1162/}", [("ACL Anthology", "https://aclanthology.org/P16-1162/")]),
        ("url = {https://openreview.net/forum?id=a}", [("OpenReview", "https://openreview.net/forum?id=a")]),
        ("url = {https://www.example.org/x.pdf}", [("example.org", "https://www.example.org/x.pdf")]),
        (
            "eprint = {1706.03762}, url = {https://arxiv.org/abs/1706.03762}",
            [("arXiv", "https://arxiv.org/abs/1706.03762")],
        ),
        ("doi = {10.1000/x}, url = {https://doi.org/10.1000/x}", [("DOI", "https://doi.org/10.1000/x")]),
        ("url = {https://arxiv.org/abs/1706.03762}", [("arxiv.org", "https://arxiv.org/abs/1706.03762")]),
    ],
)
def test_links(entry, fields, links):
    assert list(entry(f"{GOOD}, {fields}").links) == links


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ("year = 2017, eprint = {1706.03762}", (2017, 6)),
        ("year = 2015, eprint = {1409.0473}", (2014, 9)),
        ("year = 2002, eprint = {cs/0112017}", (2001, 12)),
        ("year = 1994, eprint = {cmp-lg/9406001}", (1994, 6)),
        ("year = 2003, eprint = {math.GT/0309136v2}", (2003, 9)),
        ("year = 2014, eprint = {2105.00001}", (2014, 0)),  # put on the arXiv years later
        ("year = 2014, month = mar, eprint = {2105.00001}", (2014, 3)),
        ("year = 1997, month = nov", (1997, 11)),
        ("year = 1997, month = {September}", (1997, 9)),
        ("year = 1997, month = 2", (1997, 2)),
        ("year = 1997", (1997, 0)),
    ],
)
def test_first_published(entry, fields, first):
    assert entry(f"title = {{T}}, author = {{Doe, J.}}, {fields}").published == first


# problems


def test_a_sound_file_has_no_problems(load):
    assert load(f"% a comment\n@article{{doe2020x, {GOOD}}}\n").problems == []


def test_duplicate_key_names_both_lines_and_the_first_wins(load):
    bibliography = load(
        "@misc{a2020x, title={One}, author={A}, year=2020}\n\n@misc{a2020x, title={Two}, author={B}, year=2021}"
    )
    assert bibliography["a2020x"].title == "One"
    assert problems(bibliography) == [
        (3, "a2020x: the key is already used on line 1; remove one of the two entries or rename it")
    ]


def test_broken_entry_is_reported_and_the_next_one_read(load, caplog):
    with caplog.at_level(logging.DEBUG):
        bibliography = load("\n@misc{a2020x, title={One\n@misc{b2020x, title={Two}, author={B}, year=2020}")
    [(line, message)] = problems(bibliography)
    assert line == 2
    assert message.startswith("this entry cannot be read; look for a missing brace, comma or `=`")
    assert list(bibliography) == ["b2020x"]
    assert caplog.records == []


def test_a_field_given_twice(load):
    bibliography = load("@misc{a2020x, title={1}, title={2}, author={Li, X}, year=2020, journal={Journal}}")
    assert problems(bibliography) == [(1, "the entry gives title more than once: keep one")]
    assert bibliography["a2020x"].label == "Li (2020)"  # the rest of it is read as always
    assert bibliography["a2020x"].venue == "Journal"


def test_a_field_given_twice_in_an_entry_whose_key_comes_twice(load):
    entry = "@misc{{a2020x, {}, author={{A}}, year=2020}}\n"
    bibliography = load(entry.format("title={One}, title={Two}") + entry.format("title={Three}"))
    assert [line for line, _ in problems(bibliography)] == [1, 2]
    assert "already used on line 1" in problems(bibliography)[1][1]
    assert bibliography["a2020x"].line == 1


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ("author = {A},\nyear = 2020", 1, "the entry has no title: add it"),
        ("title = {},\nauthor = {A},\nyear = 2020", 1, "the entry has no title: add it"),
        ("title = {T},\nyear = 2020", 1, "the entry has no author (and no editor): add one"),
        ("title = {T},\nauthor = {A}", 1, "the entry has no year: add it"),
        ("title = {T},\nauthor = {A},\nyear = {in press}", 4, "year 'in press' is no year of four digits"),
        ("title = {T},\nauthor = {A},\nyear = 20", 4, "year '20' is no year of four digits"),
        (
            "title = {T},\nauthor = {A, B, C, D},\nyear = 2020",
            3,
            "author 'A, B, C, D' cannot be read: write `Last, First` or `First Last`",
        ),
        (f"{GOOD},\nmonth = {{Brumaire}}", 3, "month 'Brumaire' is no month: write jan, feb … or 1 to 12"),
        (f"{GOOD},\neprint = {{1713.1}}", 3, "eprint '1713.1' is no arXiv number such as 1706.03762 or cs/0112017"),
        (
            f"{GOOD},\neprint = {{0813.0001}}",
            3,
            "eprint '0813.0001' is no arXiv number such as 1706.03762 or cs/0112017",
        ),
        (f"{GOOD},\ndoi = {{neco.1997}}", 3, "doi 'neco.1997' is no DOI such as 10.1162/neco.1997.9.8.1735"),
        (f"{GOOD},\nurl = {{ftp://a.org/b}}", 3, "url 'ftp://a.org/b' is no address that starts with https://"),
        (f"{GOOD},\nurl = {{javascript:f()}}", 3, "url 'javascript:f()' is no address that starts with https://"),
        (f"{GOOD},\njournal = jmlr", 3, "journal = jmlr: no such @string is defined above; put the value in braces"),
    ],
)
def test_what_is_wrong_with_an_entry(load, fields, line, message):
    bibliography = load(f"@article{{doe2020x,\n{fields}\n}}")
    assert problems(bibliography) == [(line, f"doe2020x: {message}")]
    assert bibliography["doe2020x"].links == ()
    assert bibliography["doe2020x"].reference  # it can still be shown


def test_unknown_year_and_authors_are_shown_as_such(load):
    found = load("@misc{doe2020x, title={T}}")["doe2020x"]
    assert (found.year, found.label, found.published) == (0, "doe2020x (n.d.)", (0, 0))


def test_a_key_that_could_not_be_cited(load):
    [(_, message)] = problems(load(f"@misc{{2020/x, {GOOD}}}"))
    assert "cannot be cited" in message
    assert load(f"@misc{{DBLP:doe_2020-x, {GOOD}}}").problems == []


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "x.bib"
    path.write_bytes(f"@misc{{doe2020x,\n{GOOD},\nnote = {{".encode() + b"\xff}}")
    bibliography = load_bibliography(path)
    assert problems(bibliography) == [(3, "byte 0xff is not UTF-8: save the file in UTF-8")]
    assert list(bibliography) == ["doe2020x"]


def test_problems_print_as_file_line_message(load, tmp_path):
    [problem] = load("\n@misc{doe2020x, author={A}, year=2020}").problems
    assert str(problem) == f"{tmp_path / 'references.bib'}:2: doe2020x: the entry has no title: add it"


@pytest.mark.parametrize(
    "text", ["", "@", "@misc{", "}}}{{{", "@misc{,}", "@misc{a}", "\x00", "@string{x=y}\n@misc{a2020x, title=x#y}"]
)
def test_never_raises_because_of_the_content(load, text):
    assert isinstance(load(text), Bibliography)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bib: there is no bibliography here; create the file"):
        load_bibliography(tmp_path / "nowhere.bib")


# the file itself


@pytest.fixture(scope="module")
def references():
    return load_bibliography(ROOT / "references.bib")


def test_references_have_no_problems(references):
    assert [str(problem) for problem in references.problems] == []
    assert len(references) > 40


def test_references_are_sorted(references):
    assert list(references) == sorted(references)


def test_keys_are_made_of_first_author_and_year(references):
    for key, entry in references.items():
        name = unicodedata.normalize("NFD", entry.authors[0][1]).lower()
        name = re.sub("[^a-z]", "", name)
        assert re.fullmatch(rf"{name}{entry.year}[a-z]+[a-z0-9]*", key), f"{key}: {entry.label}"


def test_preprints_precede_their_papers(references):
    for key, entry in references.items():
        year, month = entry.published
        assert 0 <= entry.year - year <= 4, f"{key}: {entry.published}"
        assert 0 <= month <= 12


def test_every_reference_can_be_read_somewhere(references):
    assert [key for key, entry in references.items() if not entry.links] == []
    assert [key for key, entry in references.items() if not entry.venue] == []


def test_titles_keep_their_capitals_in_bibtex_styles(references):
    """Acronyms in titles are in braces, or BibTeX styles would print Bert and lstm."""
    for key, entry in references.items():
        title = re.search(r"title = \{(.*)\},\n", entry.bibtex)[1]
        outside = re.sub(r"\{[^{}]*\}|\$[^$]*\$", "", title)
        assert not re.search(r"\b[A-Za-z]*[a-z][A-Z]|\b[A-Z]{2,}\b", outside), f"{key}: {title}"
