"""What a reader takes away from a page: the notebook, code, a reference, paper."""

import os
import re
import shutil

import nbformat
import pytest

from papercode.site.notebook_code import claim_cells
from papercode.site.project import Project
from tiny import ROOT

pytestmark = pytest.mark.browser

LORA = "papers/adaptation/lora/"
PROJECT = Project(ROOT)
CLAIMS = [fence for fence in PROJECT.session(PROJECT.papers / "adaptation/lora.md").fences if fence.language == "pycon"]
BUTTON = ".language-pycon [data-clipboard-target]"


@pytest.fixture(scope="module")
def unpacked(whole_site, tmp_path_factory):
    """The site as `make offline` changes it: no page is fetched by a script, and the search index is a script."""
    folder = tmp_path_factory.mktemp("offline") / "site"
    shutil.copytree(whole_site, folder, copy_function=os.link)
    page, index = folder / LORA / "index.html", folder / "search/search_index.json"
    text = page.read_text("utf-8")
    page.unlink()  # or the link's other end would change
    page.write_text(text.replace('"navigation.instant", ', ""), "utf-8")
    index.with_suffix(".js").write_text(f"var __index = {index.read_text('utf-8')}", "utf-8")
    return folder


@pytest.fixture(params=["http", "file"])
def lora(request, browser, address, unpacked):
    """The note on LoRA, served and opened without a server, by a reader who has granted nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.goto(address + LORA if request.param == "http" else (unpacked / LORA / "index.html").as_uri())
    page.wait_for_selector(BUTTON, state="attached")
    yield page
    context.close()


def pasted(page):
    """What is pasted after the page has said that it copied something."""
    page.wait_for_function("document.querySelector('.md-dialog--active .md-dialog__inner')?.textContent")
    page.evaluate("document.body.append(Object.assign(document.createElement('textarea'), { id: 'paste' }))")
    page.locator("#paste").press("Control+V")
    text = page.locator("#paste").input_value()
    page.evaluate("document.getElementById('paste').remove()")
    return text


def code_of(fence):
    """The code of a claim without the air between definitions."""
    return re.sub(r"\n\n(?! )", "\n", "\n".join(cell.source for cell in claim_cells(fence)))


def test_the_notebook_is_downloaded(page):
    page.goto(LORA)
    with page.expect_download() as download:
        page.get_by_role("link", name="Notebook").click()
    assert download.value.suggested_filename == "lora.ipynb"
    book = nbformat.read(download.value.path(), as_version=4)
    nbformat.validate(book)
    assert book.cells[0].source.startswith("# LoRA\n")


def test_without_a_server_the_notebook_is_a_file_beside_the_page(lora, whole_site):
    """A browser does not save one file as another, but shows it."""
    address = lora.get_by_role("link", name="Notebook").evaluate("link => link.href")
    assert address.endswith("/papers/adaptation/lora.ipynb")
    assert (whole_site / "papers/adaptation/lora.ipynb").is_file()


def test_a_reference_is_copied_at_once(lora):
    lora.get_by_role("button", name="Cite").click()
    assert pasted(lora) == PROJECT.bibliography["hu2022lora"].bibtex
    assert lora.get_by_role("status").filter(has_text=re.compile("[Cc]opied")).count() == 1


def test_code_is_copied_by_keyboard(lora):
    number = next(n for n, fence in enumerate(CLAIMS) if "Traceback" in fence.code and "class " in fence.code)
    button = lora.locator(BUTTON).nth(number)
    button.focus()
    button.press("Enter")
    assert pasted(lora) == code_of(CLAIMS[number])


def test_code_is_copied_from_a_folded_question(lora):
    question = lora.locator("details.question:has(.language-pycon)").first
    block = question.locator(".language-pycon").first
    number = lora.locator(".language-pycon").evaluate_all("(all, one) => all.indexOf(one)", block.element_handle())
    question.locator("summary").press("Enter")
    block.locator("[data-clipboard-target]").click()
    assert pasted(lora) == code_of(CLAIMS[number])


def test_code_is_copied_on_a_touch_screen(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(address + LORA)
    page.locator(BUTTON).first.tap()
    assert pasted(page) == code_of(CLAIMS[0])
    context.close()


def test_lines_of_output_that_look_like_code_are_left_out(page):
    page.goto(LORA)
    session = '>>> text = """a\n...   b\n...\n... c"""\n>>> print(text)\na\n... b\n>>>\n'
    page.locator(".language-pycon code").first.evaluate("(code, text) => { code.textContent = text }", session)
    page.locator(BUTTON).first.click()
    assert pasted(page) == 'text = """a\n  b\n\nc"""\nprint(text)'


def test_what_is_selected_by_hand_has_no_prompts(page):
    page.goto(LORA)
    code = page.locator(".language-pycon code").first
    selected = code.evaluate("code => { getSelection().selectAllChildren(code); return getSelection().toString() }")
    assert ">>>" in code.text_content()
    assert ">>>" not in selected
    assert "layer(torch.ones(2)).tolist()\n[19.0, 25.0]" in selected


def test_without_scripts_there_is_no_button_that_does_nothing(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + LORA)
    assert page.get_by_role("link", name="Notebook").is_visible()
    assert not page.get_by_role("button", name="Cite").is_visible()
    context.close()


# print


@pytest.fixture(params=["light", "dark"])
def paper(request, browser, address):
    """The note on LoRA as it is printed on A4, to a reader of light or dark pages; the browser has no script for it."""
    context = browser.new_context(viewport={"width": 665, "height": 980}, color_scheme=request.param, base_url=address)
    page = context.new_page()
    page.goto(LORA)
    page.wait_for_selector(".arithmatex .katex")
    page.emulate_media(media="print")
    yield page
    context.close()


def test_paper_shows_what_is_to_be_read_and_nothing_else(paper):
    shown = (
        "all => all.filter(e => e.checkVisibility() && e.getClientRects().length).map(e => e.className || e.tagName)"
    )
    gone = ".md-header, .md-tabs, .md-sidebar, .md-footer, .md-top, .md-clipboard, .md-code__nav, .md-content__button"
    for selector in (*gone.split(", "), ".headerlink", ".take-away", "details.cite", "details.source", ".md-dialog"):
        assert paper.locator(selector).evaluate_all(shown) == [], selector
    questions = paper.locator("details.question")
    assert questions.count() > 5
    assert questions.evaluate_all("all => all.every(e => !e.open && e.lastElementChild.checkVisibility())")
    assert questions.evaluate_all("all => all.every(e => e.getBoundingClientRect().height > 60)")
    assert paper.locator(".paper-header").is_visible()
    assert not paper.locator(".passes").is_visible()


def test_paper_is_black_on_white(paper):
    style = "e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.filter] }"
    assert paper.locator("body").evaluate(style)[:2] == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    for selector in (".md-typeset h2", "article > p:not([class])", ".md-typeset li a", ".question > summary"):
        assert paper.locator(selector).first.evaluate(style)[0] == "rgb(0, 0, 0)", selector
    assert {paper.locator("figure img").nth(n).evaluate(style)[2] for n in range(3)} == {"none"}
    darkest = paper.locator(".highlight code span").evaluate_all(
        "all => all.map(e => Math.max(...getComputedStyle(e).color.match(/[0-9.]+/g).slice(0, 3).map(Number)))"
    )
    assert max(darkest) <= 0x66


def test_nothing_is_wider_than_paper(paper):
    assert paper.evaluate("document.documentElement.scrollWidth") <= 665
    wide = """all => all.filter(e => e.getBoundingClientRect().right > 666).map(e => e.textContent.slice(0, 60))"""
    for selector in ("pre", "table", "figure", ".katex-display > .katex"):
        assert paper.locator(selector).evaluate_all(wide) == [], selector


def test_before_printing_the_page_learns_its_address_and_gets_its_figures(page):
    page.goto(f"{LORA}#questions")
    assert page.locator("figure img[loading=lazy]").count() > 3
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("figure img[loading=lazy]").count() == 0
    address = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page-address')")
    assert address == f'"{page.url.removesuffix("#questions")}"'
