"""The fonts of the site, cut down to what it shows."""

import io
import re

import pytest
from fontTools.ttLib import TTFont

from papercode.site import fonts, npm
from papercode.site.fonts import cut, embedded, text_fonts
from papercode.site.math_fonts import math_fonts
from papercode.site.project import Project
from papercode.site.store import Forgetful, Store
from tiny import ROOT

CACHE = Project(ROOT).cache


@pytest.fixture(scope="session")
def folders(katex):
    return {package: package.ensure(CACHE) for package in (fonts.SANS, fonts.CODE)}


@pytest.fixture(scope="session")
def made(folders):
    return text_fonts(folders, set("Łódź → é fi code αЖ注"), Forgetful())


def characters(font):
    with TTFont(io.BytesIO(font)) as read:
        return {chr(code) for code in read.getBestCmap()}


def test_a_font_has_what_the_site_shows_and_nothing_else(made):
    sheet, files = made
    assert set(files) == set(fonts.TEXT_FONTS)
    assert characters(files["text.woff2"]) == set("Łódź → é fi code")
    assert len(files["text.woff2"]) < 6000
    for name, font in files.items():
        assert font[:4] == b"wOF2"
        [ranges] = re.findall(rf"url\({name}\)[^}}]*unicode-range:([^}}]*)\}}", sheet)
        bounds = [(part.split("-") * 2)[:2] for part in ranges.replace("U+", "").split(",")]
        named = {chr(code) for first, last in bounds for code in range(int(first, 16), int(last, 16) + 1)}
        assert named == characters(font)


def test_characters_are_counted_however_they_are_written():
    assert fonts.characters(["<p>a&para;&#8594;</p>", "<b>é</b>"]) >= {"a", "¶", "→", "é", "<", "b"}


def test_bold_is_in_the_text_font_and_no_bold_is_made_up(made):
    sheet, files = made
    with TTFont(io.BytesIO(files["text.woff2"])) as read:
        [axis] = read["fvar"].axes
        assert (axis.axisTag, axis.minValue, axis.maxValue) == ("wght", 400, 700)
    assert sheet.count("font-weight:400 700") == sheet.count("font-display:optional") == 3


def test_embedded_fonts_leave_no_address(made):
    sheet = embedded(*made)
    assert "woff2)" not in sheet
    assert sheet.count("url(data:font/woff2;base64,") == 3


def test_what_was_cut_is_kept(folders, tmp_path, monkeypatch):
    path = folders[fonts.CODE] / "SourceCodePro-Regular.ttf.woff2"
    first = cut(path, {"a", "b"}, Store(tmp_path))
    other = cut(path, {"a", "b", "c"}, Store(tmp_path))
    monkeypatch.setattr("papercode.site.fonts.subset.Subsetter", None)
    assert cut(path, {"b", "a"}, Store(tmp_path)) == first != other


def test_cutting_gives_the_same_bytes_every_time(folders):
    path = folders[fonts.SANS] / "SourceSans3-It.ttf.woff2"
    assert cut(path, set("abc"), Forgetful()) == cut(path, set("abc"), Forgetful())


def test_of_katex_only_the_fonts_that_show_something(katex):
    sheet, files = math_fonts(katex, {"Main-Regular": {"1", "+"}, "Size1-Regular": {"("}}, Forgetful())
    assert sorted(files) == ["main-regular.woff2", "size1-regular.woff2"]
    assert re.findall(r"url\(([^)]*)\)", sheet) == ["main-regular.woff2", "size1-regular.woff2"]
    assert characters(files["main-regular.woff2"]) == {"1", "+"}
    assert ".katex .mathbf" in sheet


def test_the_site_carries_its_fonts_and_their_licences(base):
    folder = base.folder / "assets/fonts"
    sheet = (folder / "fonts.css").read_text("utf-8")
    named = set(re.findall(r"url\(([\w.-]+)\)", sheet))
    assert named == {path.name for path in folder.glob("*.woff2")} >= {*fonts.TEXT_FONTS, "math-italic.woff2"}
    assert len(list(folder.glob("LICENSE-*.txt"))) == 3
    note, plain = base.page("papers/attention/scaled"), base.page("papers/words/plain")
    preloaded = re.findall(r'<link rel="preload" href="../../../assets/fonts/([^"]*)" as="font"', note)
    assert {*fonts.TEXT_FONTS, "math-italic.woff2", "main-regular.woff2"} == set(preloaded)
    assert re.findall(r'rel="preload" href="[./]*assets/fonts/([^"]*)"', plain) == list(fonts.TEXT_FONTS)


def test_without_fonts_there_is_a_site_and_a_warning(site, monkeypatch):
    ensure = npm.Package.ensure

    def fails(package, cache):
        if package is fonts.SANS:
            raise npm.NodeError("no network")
        return ensure(package, cache)

    monkeypatch.setattr(npm.Package, "ensure", fails)
    built = site.build()
    assert built.warnings == ["text is shown in system fonts: no network"]
    assert "katex-html" in built.page("papers/attention/scaled")
