"""The gathered pages in the browser: filtering, folding, and the way to the place in the note."""

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.browser

SHOWN = ".marked-controls ~ details:visible"


def count(page) -> str:
    return page.locator(".marked-count").inner_text()


def test_words_filter_items_rows_and_headings(page):
    page.goto("findings/")
    total = page.locator(SHOWN).count()
    assert total > 100
    assert count(page) == f"{total} findings"
    page.get_by_label("Find", exact=True).fill("lora 737,280")
    assert page.locator(f"{SHOWN} > summary").all_inner_texts() == [
        "For GPT-2, LoRA trains 393,216 and 737,280 numbers, not 0.35M and 0.77M"
    ]
    assert count(page) == f"1 of {total} findings"
    assert page.locator(".marked-numbers tbody tr:visible").count() == 1
    assert [text.rstrip("¶") for text in page.locator(".marked-controls ~ :is(h2, h3):visible").all_inner_texts()] == [
        "Numbers side by side",
        "Adaptation",
        "LoRA",
    ]
    page.get_by_label("Find", exact=True).press("Escape")
    assert count(page) == f"{total} findings"
    page.get_by_label("Find", exact=True).fill("xylophone")
    assert count(page) == f"0 of {total} findings"
    assert not page.locator(".marked-numbers").is_visible()


def test_a_family_is_chosen_by_keyboard(page):
    page.goto("mistakes/")
    select = page.get_by_label("Family")
    select.focus()
    page.keyboard.type("Adapt")
    assert select.input_value() == "adaptation"
    assert page.locator(".marked-controls ~ h2:visible").all_inner_texts() == ["Adaptation¶"]
    assert 0 < page.locator(SHOWN).count() < 20
    select.select_option("")
    assert page.locator(SHOWN).count() > 100


def test_all_can_be_opened_and_closed(page):
    page.goto("questions/")
    opened = page.locator(".marked-controls ~ details[open]")
    assert opened.count() == 0
    page.get_by_role("button", name="Open all").click()
    assert opened.count() == page.locator(SHOWN).count()
    page.get_by_role("button", name="Close all").click()
    assert opened.count() == 0


@pytest.mark.parametrize("instant", [True, False])
def test_an_item_leads_to_the_open_place_in_its_note(page, instant):
    page.goto("questions/")
    page.get_by_label("Find", exact=True).fill("only the query and value projections")
    (item,) = page.locator(SHOWN).all()
    item.locator("summary").click()
    place = item.locator(".marked-place")
    assert place.inner_text() == "In the note on LoRA"
    if instant:
        place.click()
    else:
        page.goto(place.evaluate("link => link.href"))
    target = page.locator("article details.question", has_text="Because of the budget")
    target.locator("p").first.wait_for()
    assert page.url.endswith("adaptation/lora/#question-why-only-the-query-and-value-projections")
    assert target.get_attribute("open") is not None
    page.wait_for_function(
        """() => { const top = document.querySelector(location.hash).getBoundingClientRect().top;
        return top > 40 && top < 400 }"""
    )


def test_coming_back_keeps_the_page_usable(page):
    page.goto("findings/")
    page.locator("article p").get_by_role("link", name="common mistakes").click()
    page.locator("h1", has_text="Common mistakes").wait_for()
    page.get_by_label("Find", exact=True).fill("softmax")
    assert 0 < page.locator(SHOWN).count() < 100
    assert count(page).endswith(" common mistakes")


def test_without_scripts_everything_is_there(browser, address):
    context = browser.new_context(java_script_enabled=False, base_url=address)
    page = context.new_page()
    page.goto("findings/")
    assert page.locator(SHOWN).count() > 100
    assert not page.get_by_label("Find", exact=True).is_visible()
    page.locator(f"{SHOWN} > summary").first.click()
    assert page.locator(".marked-place").first.is_visible()
    context.close()


@pytest.mark.parametrize("name", ["findings", "mistakes", "questions"])
def test_pages_are_not_monstrous(whole_site, name):
    assert (whole_site / name / "index.html").stat().st_size < 600_000


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("name", ["findings/", "glossary/"])
def test_nothing_is_wider_than_the_screen(page, name, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(name)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("name", "scheme"), [("findings/", "light"), ("questions/", "dark")])
def test_no_accessibility_violations_where_items_are_open(page, name, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(name)
    page.locator(".marked-controls ~ details").evaluate_all("all => all.slice(0, 12).forEach(d => { d.open = true })")
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_chinese_is_marked_as_chinese(page):
    page.goto("glossary/")
    assert page.locator("#residual-connection td[lang=zh]").inner_text() == "残差连接"
    page.locator("#residual-connection").get_by_role("link", name="ResNet").click()
    page.locator("h1", has_text="ResNet").wait_for()
    assert "残差连接" in page.locator("dd [lang=zh]").all_inner_texts()
