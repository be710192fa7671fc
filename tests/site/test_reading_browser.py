"""Reading in a real browser: the margin, citations in place, links in code, what imports bring."""

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser
LORA, TRANSFORMER = "papers/adaptation/lora/", "papers/attention/transformer/"
CARD = ".citation-card:popover-open"
CITATION = "article a.citation[href$='#houlsby2019parameter']"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1440, "height": 900}
WORDS = {"title": "Parameter-Efficient Transfer Learning for NLP", "author": "Neil Houlsby", "venue": "ICML 2019"}
# what these tests are about; others look at the rest of the page
OURS = [".citation-card", ".passes", ".md-sidebar--secondary", "details.brings > summary", ".brings-symbol > p"]


def test_the_margin_shows_the_passes_with_their_times_and_marks_the_one_being_read(page):
    page.set_viewport_size(DESK)
    page.goto(LORA)
    passes = page.locator(".md-sidebar--secondary .pass > .md-nav__link")
    assert [text.split()[:2] for text in passes.all_inner_texts()] == [
        ["First", "pass"],
        ["Second", "pass"],
        ["Third", "pass"],
    ]
    times = page.locator(".md-sidebar--secondary .pass-time").all_inner_texts()
    assert all(time.endswith(" min") and int(time.split()[0]) > 0 for time in times)
    assert page.locator("article .passes").is_hidden()
    page.locator("#method").scroll_into_view_if_needed()
    page.locator("#method").evaluate("heading => window.scrollTo(0, heading.offsetTop + 50)")
    page.wait_for_selector(".md-sidebar--secondary .pass:nth-child(2) .md-nav__link--active")
    colours = passes.evaluate_all("links => links.map(link => getComputedStyle(link).color)")
    assert colours[1] not in (colours[0], colours[2])


def test_a_phone_has_the_passes_under_the_title(page):
    page.set_viewport_size(PHONE)
    page.goto(LORA)
    line = page.locator("article .passes")
    assert line.is_visible()
    assert page.locator(".md-sidebar--secondary").is_hidden()
    line.get_by_role("link", name="Third").click()
    page.wait_for_url("**/#third-pass-rebuild-it")


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_a_citation_opens_in_place_and_closes_again(page, how):
    page.goto(LORA)
    link = page.locator(CITATION).first
    if how == "click":
        link.click()
    else:
        link.focus()
        page.keyboard.press("Enter")
    page.wait_for_selector(CARD)
    card = page.locator(CARD)
    assert not [word for word in WORDS.values() if word not in card.inner_text()]
    assert (
        card.get_by_role("link", name="In the bibliography")
        .get_attribute("href")
        .endswith("bibliography/#houlsby2019parameter")
    )
    assert page.url.endswith(LORA)
    assert card.evaluate("card => card === document.activeElement")
    page.keyboard.press("Escape")
    page.wait_for_selector(CARD, state="detached")
    assert link.evaluate("link => link === document.activeElement")


def test_a_click_beside_the_card_closes_it_and_a_second_click_on_the_link_too(page):
    page.goto(LORA)
    link = page.locator(CITATION).first
    for beside in (lambda: page.mouse.click(5, 400), link.click):
        link.click()
        page.wait_for_selector(CARD)
        beside()
        page.wait_for_function(f"!document.querySelector('{CARD}')")
    assert page.url.endswith(LORA)


def test_the_card_leads_on(page):
    page.goto(LORA)
    page.locator("article a.citation[href$='#li2021prefix']").first.click()
    page.wait_for_selector(CARD)
    assert page.locator(f"{CARD} a", has_text="arXiv").get_attribute("href").startswith("https://arxiv.org/")
    page.locator(f"{CARD} button", has_text="Copy BibTeX").click()
    page.wait_for_selector(f"{CARD} button:has-text('Copied')")
    assert page.evaluate("navigator.clipboard.readText()").startswith("@inproceedings{li2021prefix,")
    page.locator(f"{CARD} a", has_text="In the bibliography").click()
    page.wait_for_url("**/bibliography/#li2021prefix")
    page.wait_for_function(f"!document.querySelector('{CARD}')")


def test_the_card_of_a_paper_with_a_note_leads_there_and_says_what_it_brought(page):
    page.goto(TRANSFORMER)
    page.locator("article a.citation[href$='#bahdanau2015neural']").first.click()
    note = page.locator(f"{CARD} a", has_text="Note on")
    assert page.locator(f"{CARD} .citation-contribution").inner_text()
    note.click()
    page.wait_for_url("**/papers/recurrent/bahdanau/")


def test_a_modifier_key_follows_the_link(page):
    page.goto(LORA)
    with page.context.expect_page() as opened:
        page.locator(CITATION).first.click(modifiers=["Control"])
    opened.value.wait_for_url("**/bibliography/#houlsby2019parameter")
    assert page.locator(CARD).count() == 0


def test_the_references_are_loaded_when_they_are_needed(page):
    page.goto(LORA)
    page.wait_for_load_state("networkidle")
    assert not [url for url in page.asked if "references.js" in url or "/source/" in url]
    for _ in range(2):
        page.locator(CITATION).first.click()
        page.wait_for_selector(CARD)
        page.keyboard.press("Escape")
    assert len([url for url in page.asked if "references.js" in url]) == 1


def test_on_a_phone_the_card_is_a_sheet_at_the_foot(page):
    page.set_viewport_size(PHONE)
    page.goto(LORA)
    page.locator(CITATION).first.click()
    page.wait_for_selector(CARD)
    box = page.locator(CARD).bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    assert box["y"] + box["height"] == pytest.approx(844, abs=1)


@pytest.mark.parametrize("size", [DESK, {"width": 820, "height": 1180}], ids=["desk", "tablet"])
def test_elsewhere_it_stands_at_its_citation_and_inside_the_screen(page, size):
    page.set_viewport_size(size)
    page.goto(LORA)
    for number in (0, 4, 12):
        link = page.locator("article a.citation").nth(number)
        link.click()
        page.wait_for_selector(CARD)
        card, cited = page.locator(CARD).bounding_box(), link.bounding_box()
        assert card["x"] >= 0
        assert card["x"] + card["width"] <= size["width"]
        below, above = card["y"] - cited["y"], cited["y"] - card["y"] - card["height"]
        assert 0 < below < 80 or 0 <= above < 80
        page.keyboard.press("Escape")
        page.wait_for_selector(CARD, state="detached")


def test_without_javascript_everything_is_a_link(browser, address):
    context = browser.new_context(java_script_enabled=False, base_url=address, viewport=DESK)
    page = context.new_page()
    page.goto(LORA)
    page.locator("details.brings").first.locator("summary").click()
    symbol = page.locator("details.brings").first.locator(".brings-symbol a").first
    assert symbol.is_visible()
    assert "../api/" in symbol.get_attribute("href")
    page.locator(CITATION).first.click()
    page.wait_for_url("**/bibliography/#houlsby2019parameter")
    context.close()


def test_it_works_from_a_disk(browser, base, site):
    built = site.build(strict=True, use_directory_urls=False)
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    page.goto((built.folder / "papers/adaptation/adapter.html").as_uri())
    page.locator("article a.citation").first.click()
    page.wait_for_selector(CARD)
    assert "A First Paper on Scaling" in page.locator(CARD).inner_text()
    note = page.locator(f"{CARD} a", has_text="Note on Scaled").evaluate("link => link.href")
    assert note == (built.folder / "papers/attention/scaled.html").as_uri()
    page.goto(note)
    page.locator("details.brings summary").click()
    page.wait_for_selector(".brings-symbol pre")
    assert "return FACTOR * x" in page.locator(".brings-symbol pre").inner_text()
    context.close()


def test_footnotes_open_in_place(browser, site):
    path = site.root / "docs/index.md"
    path.write_text(path.read_text("utf-8") + "\nA claim.[^1]\n\n[^1]: With a *reason* below.\n", "utf-8")
    built = site.build(strict=True)
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.goto((built.folder / "index.html").as_uri())
    page.locator("a.footnote-ref").click()
    page.wait_for_selector(CARD)
    assert page.locator(f"{CARD} em").inner_text() == "reason"
    assert page.locator(f"{CARD} .footnote-backref").count() == 0
    assert "#fn" not in page.url
    context.close()


def test_names_in_code_lead_to_their_definition_and_copying_is_not_disturbed(page):
    page.goto(TRANSFORMER)
    block = page.locator(".language-pycon").first
    link = block.locator("a.code-link", has_text="attention").nth(1)
    assert link.evaluate("link => getComputedStyle(link).textDecorationStyle") == "dotted"
    block.hover()
    block.locator("button, .md-clipboard").first.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('import attention'))")
    assert page.evaluate("navigator.clipboard.readText()").startswith("import math, torch\nfrom papercode.attention")
    link.click()
    page.wait_for_url("**/api/attention/transformer/#papercode.attention.transformer.attention")
    assert page.locator("[id='papercode.attention.transformer.attention']").is_visible()


def test_imports_unfold_to_their_sources(page):
    page.goto(TRANSFORMER)
    fold = page.locator("details.brings").first
    assert "What the import brings: attention" in fold.inner_text()
    fold.locator("summary").click()
    page.wait_for_selector("details.brings[open] pre")
    assert fold.locator("pre").inner_text().startswith("def attention(")
    assert "src/papercode/attention/transformer.py" in fold.inner_text()


def test_both_survive_instant_navigation(page):
    page.goto("papers/")
    page.locator("article a", has_text="LoRA").first.click()
    page.wait_for_url("**/papers/adaptation/lora/")
    page.locator(CITATION).first.click()
    page.wait_for_selector(CARD)
    page.keyboard.press("Escape")
    page.locator("details.brings summary").first.click()
    page.wait_for_selector("details.brings[open] pre")


@pytest.mark.parametrize(
    ("path", "size", "scheme"), [(LORA, PHONE, "dark"), (LORA, DESK, "light"), (TRANSFORMER, PHONE, "light")]
)
def test_nothing_of_it_is_in_the_way_of_anybody(browser, address, path, size, scheme):
    context = browser.new_context(viewport=size, color_scheme=scheme, base_url=address)
    page = context.new_page()
    page.goto(path)
    page.evaluate("document.querySelectorAll('details.brings').forEach((fold) => { fold.open = true })")
    page.wait_for_selector(".brings-symbol pre")
    page.locator("article a.citation").nth(3).click()
    page.wait_for_selector(CARD)
    found = Axe().run(page, context={"include": [[part] for part in OURS if page.locator(part).count()]})
    assert [(v["id"], v["nodes"][0]["html"]) for v in found.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    context.close()
