"""The site as a whole: it builds strictly, and does in a browser what a reader expects of it."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAPERS = ["papers/attention/transformer/", "papers/adaptation/lora/"]
PAGES = ["", "reading/", "papers/", "bibliography/", "api/", "api/attention/transformer/", *PAPERS]


def test_every_page_is_there(whole_site):
    missing = [page for page in PAGES if not (whole_site / page / "index.html").is_file()]
    assert not missing


def test_figures_are_files_with_alternative_text_and_size(whole_site):
    for paper in PAPERS:
        html = (whole_site / paper / "index.html").read_text("utf-8")
        figures = re.findall(r"<img[^>]*assets/figures/[^>]*>", html)
        assert len(figures) >= 3, paper
        for figure in figures:
            assert re.search(r'alt="[^"]{20,}"', figure), figure
            assert re.search(r'width="\d+"', figure), figure
            source = (whole_site / paper / re.search(r'src="([^"]+)"', figure)[1]).resolve()
            assert source.read_text("utf-8").startswith("<svg"), source


def test_edit_links_lead_to_the_sources(whole_site):
    expected = {
        PAPERS[0]: "edit/main/papers/attention/transformer.md",
        "reading/": "edit/main/docs/reading.md",
        "bibliography/": "edit/main/references.bib",
        "api/adaptation/lora/": "edit/main/src/papercode/adaptation/lora.py",
    }
    for page, link in expected.items():
        found = re.findall(r'href="https://[^"]*?/(edit/[^"]+)"', (whole_site / page / "index.html").read_text("utf-8"))
        assert [os.path.normpath(f) for f in found] == [link], page
        assert (ROOT / link.removeprefix("edit/main/")).is_file()


def test_nothing_names_a_foreign_host_that_a_browser_would_load(whole_site):
    for path in whole_site.rglob("*.html"):
        loaded = re.findall(r'(?:src|data-src)="(https?:[^"]+)"', path.read_text("utf-8"))
        linked = re.findall(
            r'<link[^>]+rel="(?:stylesheet|preconnect|icon)"[^>]+href="(https?:[^"]+)"', path.read_text()
        )
        assert not loaded + linked, path


@pytest.mark.browser
@pytest.mark.parametrize("path", PAGES)
def test_no_request_leaves_the_site_and_nothing_overflows_a_phone(page, address, path):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(path)
    page.wait_for_load_state("networkidle")
    foreign = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert not foreign
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.browser
@pytest.mark.parametrize("path", PAPERS)
def test_every_formula_is_rendered(page, path):
    page.goto(path)
    page.wait_for_selector(".arithmatex .katex")
    assert page.locator(".katex-error").count() == 0
    assert page.locator(".arithmatex:not(:has(.katex))").count() == 0
    assert page.locator(".arithmatex").count() > 20


@pytest.mark.browser
def test_math_and_copying_survive_instant_navigation(page):
    page.goto("papers/")
    page.locator("article a", has_text="LoRA").first.click()
    page.wait_for_url("**/papers/adaptation/lora/")
    page.wait_for_selector(".arithmatex .katex")
    assert page.locator(".arithmatex:not(:has(.katex))").count() == 0


@pytest.mark.browser
def test_a_citation_shows_the_reference_and_leads_to_its_entry(page):
    page.goto(PAPERS[1])
    link = page.locator("article a.citation").first
    title = link.get_attribute("title") or link.get_attribute("data-md-title") or ""
    key = link.get_attribute("href").split("#")[1]
    link.click()
    page.locator(".citation-card a", has_text="In the bibliography").click()
    page.wait_for_url(f"**/bibliography/#{key}")
    entry = page.locator(f"li#{key}, #{key}").first
    assert entry.is_visible()
    assert len(title) > 40


@pytest.mark.browser
def test_copying_a_claim_gives_code_without_prompts_and_outputs(page):
    page.goto("")
    block = page.locator(".language-pycon").first
    block.hover()
    block.locator("button, .md-clipboard").first.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('attention('))")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert ">>>" not in copied
    assert "0.75" not in copied
    namespace: dict = {}
    exec(copied, namespace)
    average = namespace["attention"](*(namespace[name].view(1, 1, -1, 1) for name in "qkv"))
    assert round(average.item(), 4) == 0.75


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("anti-diagonal", "papers/attention/transformer/"),
        ("LoRALinear", "adaptation/lora/"),
        ("multiheadattention", "attention/transformer/"),
        ("Vaswani", "papers/attention/transformer/"),
        ("Kalchbrenner", "bibliography/"),
        ("subspace_similarity", "adaptation/lora/"),
    ],
)
def test_search_finds_words_identifiers_and_authors(page, query, expected):
    page.goto("")
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially(query)
    page.wait_for_selector(".md-search-result__item")
    found = page.locator(".md-search-result__link").evaluate_all("links => links.map(link => link.href)")
    assert any(expected in link for link in found[:5]), found


@pytest.mark.browser
def test_search_finds_nothing_for_nonsense(page):
    page.goto("")
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially("qwrtzpsdfgh")
    page.wait_for_function("document.querySelector('.md-search-result__meta').textContent.includes('No matching')")
    assert page.locator(".md-search-result__item").count() == 0


@pytest.mark.browser
def test_code_links_lead_to_the_module_and_back(page):
    page.goto(PAPERS[1])
    page.locator(".paper-header a", has_text="papercode.adaptation.lora").first.click()
    page.wait_for_url("**/api/adaptation/lora/")
    assert page.locator("#papercode\\.adaptation\\.lora\\.LoRALinear").count() == 1
    page.locator("article a", has_text="LoRA").first.click()
    page.wait_for_url("**/papers/adaptation/lora/")


@pytest.mark.browser
def test_figures_are_turned_light_in_the_dark(browser, address):
    def look(scheme: str) -> str:
        context = browser.new_context(color_scheme=scheme, base_url=address)
        page = context.new_page()
        page.goto(PAPERS[0])
        found = page.locator("img[src*='assets/figures/']").first.evaluate("image => getComputedStyle(image).filter")
        context.close()
        return found

    assert "invert" in look("dark")
    assert look("light") == "none"
