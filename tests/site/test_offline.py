"""`make offline`: the site as a folder that is opened without a server and without a network."""

import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from listener import listen
from queries import unanswered

from papercode.site.offline import pack
from tiny import ROOT

NOTE = "papers/adaptation/lora.html"


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """What a reader has who unpacked the zip: made with the commands of the Makefile."""
    folder = tmp_path_factory.mktemp("offline")
    recipe = re.search(r"^offline:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text("utf-8"), re.M)[1]
    assert recipe.splitlines() == [
        "\t$(BIN)/mkdocs build --strict --config-file offline.yml",
        "\t@$(BIN)/python -m papercode.site.offline build/papercode dist/papercode-site.zip",
    ]
    site, packed = folder / "papercode", folder / "papercode-site.zip"
    build = ["mkdocs", "build", "--strict", "--config-file", "offline.yml", "-d", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    for command in (build, ["papercode.site.offline", str(site), str(packed)]):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{packed}: \d+\.\d MB; unpack it and open papercode/index\.html\n", done.stdout)
    with zipfile.ZipFile(packed) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"papercode"}
        archive.extractall(folder / "unpacked")
    return folder / "unpacked/papercode"


@pytest.fixture
def opened(browser, copy):
    """A page opened from the copy, which knows what it asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = listen(context.new_page())
    yield page
    context.close()
    assert not page.errors
    inside = copy.as_uri()
    assert [url for url in page.asked if not url.startswith((inside, "data:", "blob:", "about:"))] == []


@pytest.mark.browser
def test_a_reader_finds_the_way_by_clicking(opened, copy):
    opened.goto((copy / "index.html").as_uri())
    opened.locator("a.md-tabs__link", has_text="Papers").click()
    opened.wait_for_url("**/papers/index.html")
    opened.locator("article a", has_text="LoRA").first.click()
    opened.wait_for_url(f"**/{NOTE}")
    opened.wait_for_function(
        "document.fonts.check('16px KaTeX_Main') && document.fonts.check('16px \"Source Sans 3\"')"
    )
    assert opened.locator(".arithmatex:not(:has(.katex))").count() == 0
    opened.locator("article a.citation").first.click()
    opened.locator(".citation-card a", has_text="In the bibliography").click()
    opened.wait_for_url("**/bibliography.html#*")
    figures = opened.goto((copy / NOTE).as_uri()) and opened.locator("img[src*='assets/figures/']")
    figures.first.scroll_into_view_if_needed()
    opened.wait_for_function("document.querySelector('img[src*=\"assets/figures/\"]').naturalWidth > 0")


@pytest.mark.browser
@pytest.mark.parametrize(("query", "place"), [("LoRALinear", "adaptation/lora.html"), ("Vaswani", "transformer.html")])
def test_search_works_without_a_server(opened, copy, query, place):
    opened.goto((copy / "index.html").as_uri())
    opened.locator("input.md-search__input").click()
    opened.locator("input.md-search__input").press_sequentially(query)
    opened.locator(f".md-search-result__link[href*='{place}?h={query.lower()}']").first.click()
    opened.wait_for_url(f"**/{place}?h={query.lower()}*")
    opened.locator("article mark", has_text=query).first.wait_for(state="attached")


@pytest.mark.browser
def test_search_without_a_server_finds_what_it_finds_with_one(opened, copy):
    opened.goto((copy / "reading.html").as_uri())
    assert unanswered(opened) == {}


class _Links(HTMLParser):
    """The links, loaded files and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.found, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.anchors.update(value for name, value in attributes if name in {"id", "name"} and value)
        self.found += [value for name, value in attributes if name in {"href", "src"} and value]


def test_every_link_of_the_copy_leads_to_a_file_and_an_anchor_of_it(copy):
    pages = {path: _Links(path.read_text("utf-8")) for path in copy.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 150
    dead = []
    for page, links in pages.items():
        for link in links.found:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append(f"{page.relative_to(copy)}: {link}")
    assert dead == []


def test_what_needs_a_server_is_off(copy):
    text = (copy / NOTE).read_text("utf-8")
    assert "navigation.instant" not in text
    assert 'rel="preload"' not in text
    assert 'src="../../assets/iframe-worker.js"' in text
    assert "url(data:font/woff2" in (copy / "assets/fonts/fonts.css").read_text("utf-8")
    assert (copy / "assets/LICENSE-iframe-worker.txt").is_file()


def test_no_site_no_zip(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no site in .*: it has no index\.html"):
        pack(tmp_path, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
