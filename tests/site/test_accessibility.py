"""Everybody can read the site: no rule of axe-core is broken, and all of it is reached and seen with the keyboard."""

import itertools
import re

import pytest

NOTES = ["papers/adaptation/lora/", "papers/attention/transformer/", "papers/convolutional/text_cnn/"]
OTHERS = [
    "map/",
    "papers/",
    "bibliography/",
    "findings/",
    "mistakes/",
    "questions/",
    "glossary/",
    "parity/",
    "benchmarks/",
    "reading/",
]
PAGES = ["", *NOTES, *OTHERS, "api/", "api/adaptation/lora/"]
PHONE, DESK, TWICE = (390, 844), (1440, 900), (720, 450)  # the last: a screen of 1440, all twice as large


def open_page(page, path, size, scheme="light", motion="no-preference"):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme, reduced_motion=motion)
    page.add_init_script("localStorage.clear()")  # it remembers the colours of the page before
    page.goto(path)
    page.wait_for_load_state("networkidle")
    assert page.locator("body").get_attribute("data-md-color-scheme") == {"light": "default", "dark": "slate"}[scheme]


def violations(page):
    """What breaks a rule of axe-core, best practices included: rule, place and HTML."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} at {node['target']}: {node['html'][:200]}\n  {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.browser
@pytest.mark.parametrize("path", PAGES)
def test_no_rule_of_axe_is_broken(page, path):
    """Colours do not depend on the width, nor the layout on the colours: each width has one scheme, most pages."""
    looks = [(PHONE, "dark"), (DESK, "light")]
    if path in ("", NOTES[0]):
        looks += [(PHONE, "light"), (DESK, "dark")]
    for size, scheme in looks:
        open_page(page, path, size, scheme)
        found = violations(page)
        assert not found, f"{path} at {size}, {scheme}:\n" + "\n".join(found)


@pytest.mark.browser
def test_axe_sees_what_is_wrong(page):
    open_page(page, "", DESK)
    page.locator("article").evaluate("""article => article.insertAdjacentHTML("beforeend",
        '<p style="color: #999">pale</p><img src="assets/favicon.svg"><h5>too deep</h5><a href="#"></a>')""")
    rules = {line.split(" at ")[0] for line in violations(page)}
    assert {"color-contrast", "image-alt", "heading-order", "link-name"} <= rules


FOCUS = """() => {
    const element = document.activeElement;
    const seen = element.matches(".md-option") ? element.nextElementSibling : element;  // a radio button, as its icon
    const style = getComputedStyle(seen), box = seen.getBoundingClientRect();
    const within = box.width > 4 && box.height > 4 && box.right > 0 && box.bottom > 0
        && box.left < innerWidth && box.top < innerHeight;
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && style.outlineColor;
    return {what: element.outerHTML.slice(0, 120), inside: !!element.closest("article"), within, ring,
            alpha: +(/rgba\\(.*, ([\\d.]+)\\)/.exec(style.outlineColor)?.[1] ?? 1)};
}"""


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, TWICE, DESK])
def test_what_has_the_focus_is_on_the_screen_and_has_a_ring(page, size):
    open_page(page, NOTES[0], size)
    inside = 0
    for _ in range(70):
        page.keyboard.press("Tab")
        page.wait_for_function("document.getAnimations().length === 0")
        focus = page.evaluate(FOCUS)
        assert focus["within"], focus
        assert focus["ring"], focus
        assert focus["alpha"] > 0.5, focus
        inside += focus["inside"]
        if inside == 12:
            return
    pytest.fail("70 times Tab, and not 12 of them in the text")


@pytest.mark.browser
@pytest.mark.parametrize("path", [NOTES[0], "papers/", "bibliography/", "api/"])
def test_the_first_link_skips_to_the_text(page, path):
    open_page(page, path, DESK)
    page.keyboard.press("Tab")
    skip = page.locator(":focus")
    assert "md-skip" in skip.get_attribute("class")
    target = "#" + skip.get_attribute("href").split("#")[1]
    page.keyboard.press("Enter")
    page.wait_for_function("target => location.hash === target", arg=target)
    page.keyboard.press("Tab")
    assert page.locator("article :focus").count() == 1
    assert page.locator(f"h1{target}").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("size", [PHONE, TWICE])
def test_menu_and_search_open_by_key_on_small_screens(page, size):
    open_page(page, NOTES[0], size)
    link = page.locator(".md-nav--primary a", has_text="Bibliography")
    assert not link.is_visible()
    page.get_by_role("button", name="Navigation").press("Enter")
    assert page.locator("#__drawer").is_checked()
    page.wait_for_function("getComputedStyle(document.querySelector('.md-sidebar--primary')).visibility === 'visible'")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Navigation").press("Enter")
    assert not page.locator("#__drawer").is_checked()
    page.get_by_role("button", name="Search").press("Enter")
    page.wait_for_function("document.activeElement.matches('.md-search__input')")
    page.keyboard.type("Vaswani")
    page.wait_for_selector(".md-search-result__item")


@pytest.mark.browser
@pytest.mark.parametrize("path", PAGES)
def test_text_twice_as_large_needs_no_sideways_scrolling(page, path):
    open_page(page, path, TWICE)
    assert page.evaluate("document.documentElement.scrollWidth") <= TWICE[0]


@pytest.mark.browser
def test_what_is_wider_than_a_phone_scrolls_by_key(page):
    open_page(page, NOTES[0], PHONE)
    page.wait_for_selector("article figure[tabindex='0']")
    figure = page.locator("article figure[tabindex='0']").first
    figure.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("figure => figure.scrollLeft > 0", arg=figure.element_handle())
    page.set_viewport_size({"width": DESK[0], "height": DESK[1]})  # all of it fits: no place to stop
    page.wait_for_function("!document.querySelector('article figure[tabindex]')")


@pytest.mark.browser
def test_nothing_moves_for_those_who_ask_for_it(page):
    for motion, moves in (("no-preference", True), ("reduce", False)):
        open_page(page, NOTES[0], PHONE, motion=motion)
        page.get_by_role("button", name="Navigation").press("Enter")
        assert (page.evaluate("document.getAnimations().length") > 0) is moves


@pytest.mark.browser
@pytest.mark.parametrize("path", ["", NOTES[0], "papers/"])
def test_landmarks_and_language(page, path):
    open_page(page, path, DESK)
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    named = page.locator("nav:not([role=none])").evaluate_all("""navs => navs.map(nav => nav.getAttribute("aria-label")
        ?? document.getElementById(nav.getAttribute("aria-labelledby"))?.textContent.trim())""")
    assert len(named) > 3
    assert all(named), named


def test_chinese_is_marked_as_chinese(whole_site):
    for path in NOTES:
        terms = re.search(r"<dt>Terms</dt>\s*<dd>(.*?)</dd>", (whole_site / path / "index.html").read_text("utf-8"))[1]
        assert '<span lang="zh">' in terms
        assert not re.search(r"[\u4e00-\u9fff]", re.sub(r'<span lang="zh">.*?</span>', "", terms))


def test_headings_leave_out_no_level(whole_site):
    notes = sorted((whole_site / "papers").glob("*/*/index.html"))
    assert len(notes) > 40
    for note in notes:
        article = re.search(r"<article.*</article>", note.read_text("utf-8"), re.DOTALL)[0]
        levels = [int(level) for level in re.findall(r"<h([1-6])\b", article)]
        assert levels.count(1) == 1, note
        assert levels[0] == 1, note
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), note
