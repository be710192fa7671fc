"""Home and catalogue in a browser: filters, search and order are what Python makes of the collection."""

import unicodedata
from itertools import pairwise
from urllib.parse import parse_qs

import pytest
from axe_playwright_python.sync_playwright import Axe

from papercode.site.project import Project
from tiny import ROOT

pytestmark = pytest.mark.browser
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1440, 900)}


@pytest.fixture(scope="module")
def papers():
    return Project(ROOT).collection


def plain(text):
    """Small letters without accents."""
    return "".join(c for c in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(c))


def option(paper, name):
    """What a paper has to say to one kind of filter."""
    if name == "family":
        return paper.family
    if name == "year":
        return str(paper.published[0])
    return "yes" if {"note": paper.reviewed, "parity": paper.parity, "gpu": paper.gpu}[name] else "no"


def words(paper):
    """The text in which the search looks for a paper."""
    terms = [word for pair in (paper.note.terms if paper.note else {}).items() for word in pair]
    named = [paper.name, paper.key, paper.contribution, paper.entry.title, *paper.entry.author_names, paper.entry.venue]
    return plain(" ".join([*named, *terms]))


def chosen(papers, query="", **wanted):
    """The keys of the papers that a state leaves, as Python sees it."""
    return {
        key
        for key, paper in papers.items()
        if all(option(paper, name) in values for name, values in wanted.items())
        and all(word in words(paper) for word in plain(query).split())
    }


def shown(page):
    """The keys of the papers that one sees, from top to bottom."""
    every = "papers => papers.map(paper => paper.dataset.words.split(' ')[0])"
    return page.locator(".cat-paper:visible").evaluate_all(every)


def counts(page):
    """The number beside each option."""
    read = "boxes => boxes.map(b => [b.name, b.value, +b.parentElement.querySelector('.cat-n').textContent])"
    return {(name, value): n for name, value, n in page.locator(".cat-facets input").evaluate_all(read)}


def status(page):
    return page.get_by_role("status").filter(has_text="papers").inner_text()


def fragment_of(page):
    """What the address says after its `#`."""
    return page.evaluate("location.hash.slice(1)")


def tick(page, name, value):
    page.locator(f".cat-facets input[name={name}][value='{value}']").check()


@pytest.fixture
def catalogue(page):
    page.goto("papers/")
    return page


@pytest.mark.parametrize(
    "wanted",
    [
        {"note": ["yes"]},
        {"note": ["no"], "family": ["words"]},
        {"family": ["attention", "encoders"]},
        {"family": ["attention"], "year": ["2020", "2021"], "note": ["yes"]},
        {"parity": ["yes"], "gpu": ["yes"]},
        {"gpu": ["yes"], "family": ["words"]},
        {"year": ["2019"], "parity": ["yes"]},
    ],
    ids=lambda wanted: " ".join(wanted),
)
def test_filters_leave_what_python_leaves_and_the_counts_add_up(catalogue, papers, wanted):
    assert len(shown(catalogue)) == len(papers)
    for name, values in wanted.items():
        for value in values:
            tick(catalogue, name, value)
    expected = chosen(papers, **wanted)
    found = shown(catalogue)
    assert set(found) == expected
    assert len(found) == len(expected)
    assert status(catalogue) == f"{len(expected)} of {len(papers)} papers"
    for (name, value), number in counts(catalogue).items():
        others = {other: values for other, values in wanted.items() if other != name}
        assert number == len(chosen(papers, **others, **{name: [value]})), (name, value)
    for name in ("family", "year", "note"):  # what is chosen of a kind is what one sees
        values = wanted.get(name) or {value for kind, value in counts(catalogue) if kind == name}
        assert sum(counts(catalogue)[name, value] for value in values) == len(expected)


@pytest.mark.parametrize(
    "query",
    [
        "lora",
        "vaswani",
        "HERVE jegou",
        "hochreiter1997long",
        "注意力机制",
        "残差连接",
        "shazeer attention",
        "low-rank",
        "forget gate",
        "xyzzy",
    ],
)
def test_search_as_you_type(catalogue, papers, query):
    field = catalogue.get_by_label("Find")
    field.press_sequentially(query)
    expected = chosen(papers, query)
    assert set(shown(catalogue)) == expected
    assert bool(expected) == (query != "xyzzy")
    assert status(catalogue) == f"{len(expected)} of {len(papers)} papers"
    tick(catalogue, "note", "yes")
    assert set(shown(catalogue)) == chosen(papers, query, note=["yes"])


def test_an_empty_result_says_so_and_offers_a_way_out(catalogue, papers):
    nothing = catalogue.get_by_text("No paper is like that.")
    assert not nothing.is_visible()
    tick(catalogue, "family", "alignment")
    catalogue.get_by_label("Find").fill("xyzzy")
    assert nothing.is_visible()
    assert status(catalogue) == f"0 of {len(papers)} papers"
    catalogue.get_by_role("button", name="Clear all filters").click()
    assert not nothing.is_visible()
    assert status(catalogue) == f"{len(papers)} papers"
    assert catalogue.locator(".cat-facets input:checked").count() == 0
    assert catalogue.get_by_label("Find").evaluate("field => field === document.activeElement")
    assert fragment_of(catalogue) == ""


def test_the_order(catalogue, papers):
    def dates():
        return [papers[key].published for key in shown(catalogue)]

    order = catalogue.get_by_label("Order")
    families = [papers[key].family for key in shown(catalogue)]
    assert len(list(dict.fromkeys(families))) == 1 + sum(a != b for a, b in pairwise(families))
    order.select_option("oldest first")
    assert dates() == sorted(paper.published for paper in papers.values())
    assert catalogue.locator(".cat-group:visible").count() == 0
    order.select_option("newest first")
    assert dates() == sorted((paper.published for paper in papers.values()), reverse=True)
    tick(catalogue, "note", "yes")
    assert set(shown(catalogue)) == chosen(papers, note=["yes"])
    catalogue.get_by_role("button", name="Clear all").first.click()
    order.select_option("by family")
    assert [papers[key].family for key in shown(catalogue)] == families
    assert catalogue.locator(".cat-group:visible").count() == len(set(families))


def test_the_address_is_the_state_and_can_be_shared(catalogue, papers, address):
    tick(catalogue, "family", "attention")
    tick(catalogue, "year", "2020")
    tick(catalogue, "year", "2021")
    catalogue.get_by_label("Find").press_sequentially("linear 注意力")
    catalogue.get_by_label("Order").select_option("newest first")
    fragment = fragment_of(catalogue)
    assert parse_qs(fragment) == {
        "q": ["linear 注意力"], "order": ["newest"], "family": ["attention"], "year": ["2020", "2021"],
    }  # fmt: skip
    seen = shown(catalogue)
    assert seen
    other = catalogue.context.new_page()
    other.goto(f"{address}papers/#{fragment}")
    other.wait_for_function(f"document.querySelector('.cat [role=status]').textContent.startsWith('{len(seen)} of')")
    assert shown(other) == seen
    assert other.get_by_label("Find").input_value() == "linear 注意力"
    assert other.locator(".cat-facets input:checked").count() == 3


def test_the_back_button_takes_one_choice_back(catalogue, papers):
    def expect(number):
        text = f"{number} of {len(papers)} papers" if number < len(papers) else f"{number} papers"
        catalogue.wait_for_function(
            "text => document.querySelector('.cat [role=status]').textContent === text", arg=text
        )
        assert len(shown(catalogue)) == number

    attention = len(chosen(papers, family=["attention"]))
    with_notes = len(chosen(papers, family=["attention"], note=["yes"]))
    tick(catalogue, "family", "attention")
    tick(catalogue, "note", "yes")
    expect(with_notes)
    catalogue.get_by_label("Find").press_sequentially("linear")  # six letters, one step
    expect(len(chosen(papers, "linear", family=["attention"], note=["yes"])))
    for number in (with_notes, attention, len(papers)):
        catalogue.go_back()
        expect(number)
    assert catalogue.get_by_label("Find").input_value() == ""
    catalogue.go_forward()
    expect(attention)
    assert catalogue.locator(".cat-facets input:checked").count() == 1


def test_home_leads_to_a_filtered_catalogue_and_back(page, papers):
    page.goto("")
    page.locator(".home-families a", has_text="Attention").click()
    page.wait_for_url("**/papers/#family=attention")
    page.wait_for_function("document.querySelector('.cat [role=status]').textContent.includes(' of ')")
    assert set(shown(page)) == chosen(papers, family=["attention"])
    assert page.evaluate("scrollY") == 0
    page.go_back()
    page.locator(".home-years a", has_text="2019").click()
    page.wait_for_url("**/papers/#year=2019")
    page.wait_for_function("document.querySelector('.cat [role=status]').textContent.includes(' of ')")
    assert set(shown(page)) == chosen(papers, year=["2019"])


def test_a_list_that_waits_for_its_script_does_not_wait_for_ever(page, papers):
    page.route("**/assets/catalogue.js", lambda route: route.fulfill(body=""))
    page.goto("papers/#family=encoders")
    page.locator("[id='family=encoders']").wait_for()  # the browser goes there
    page.wait_for_function("scrollY > 0")
    assert len(shown(page)) == len(papers)
    page.add_script_tag(path=ROOT / "src/papercode/site/assets/pages/catalogue.js")
    page.wait_for_function("document.querySelector('.cat [role=status]').textContent.includes(' of ')")
    assert set(shown(page)) == chosen(papers, family=["encoders"])
    assert page.evaluate("scrollY") == 0


def test_an_anchor_that_is_no_state_changes_nothing(catalogue):
    tick(catalogue, "gpu", "yes")
    seen = shown(catalogue)
    catalogue.evaluate("document.querySelector('.cat').old = true")
    catalogue.evaluate("location.hash = 'papers'")
    catalogue.wait_for_function("!document.querySelector('.cat').old")  # Material fetches the page again
    catalogue.locator(".cat-facets input[name=gpu]:checked").wait_for(state="attached")
    assert shown(catalogue) == seen


def test_it_works_from_a_file(browser, whole_site, papers):
    context = browser.new_context()
    page = context.new_page()
    page.goto((whole_site / "papers/index.html").as_uri() + "#family=decoders&note=yes")
    page.wait_for_function("document.querySelector('.cat [role=status]').textContent.includes(' of ')")
    assert set(shown(page)) == chosen(papers, family=["decoders"], note=["yes"])
    tick(page, "family", "encoders")
    assert set(shown(page)) == chosen(papers, family=["decoders", "encoders"], note=["yes"])
    assert parse_qs(fragment_of(page))["family"] == ["encoders", "decoders"]
    context.close()


def test_without_scripts_the_whole_list_is_there(browser, address, papers):
    context = browser.new_context(java_script_enabled=False, base_url=address)
    page = context.new_page()
    for path in ("papers/", "papers/#family=attention"):
        page.goto(path)
        assert page.locator(".cat-paper:visible").count() == len(papers)
        assert page.locator(".cat-controls:visible, .cat-controls input:visible").count() == 0
    context.close()


def test_on_a_phone_the_filters_fold_away(catalogue, papers):
    catalogue.set_viewport_size({"width": 390, "height": 844})
    button, facets = catalogue.locator(".cat-fold"), catalogue.locator(".cat-facets")
    assert not facets.is_visible()
    assert catalogue.locator(".cat-paper").first.bounding_box()["y"] < 844
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    tick(catalogue, "family", "multimodal")
    assert catalogue.evaluate("document.documentElement.scrollWidth") <= 390
    button.click()
    assert not facets.is_visible()
    assert "(1)" in button.inner_text()
    assert set(shown(catalogue)) == chosen(papers, family=["multimodal"])
    assert catalogue.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_reaches_everything_in_order(catalogue):
    catalogue.get_by_label("Find").focus()
    focused = "document.activeElement.name || document.activeElement.className"
    reached = []
    for _ in range(4):
        catalogue.keyboard.press("Tab")
        reached.append(catalogue.evaluate(focused))
    assert reached == ["order", "note", "note", "parity"]  # nothing is folded, nothing is to be cleared
    catalogue.keyboard.press("Space")
    assert parse_qs(fragment_of(catalogue)) == {"parity": ["yes"]}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("path", ["", "papers/", "papers/#family=attention", "papers/#year=2019&note=yes"])
def test_nothing_moves_while_the_page_loads(page, path, size):
    watch = "new PerformanceObserver(list => window.shifts.push(...list.getEntries().map(e => e.value)))"
    page.add_init_script(f"window.shifts = []; {watch}.observe({{type: 'layout-shift', buffered: true}})")
    page.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    page.goto(path)
    page.wait_for_load_state("networkidle")
    if path.startswith("papers/"):
        page.wait_for_selector(".cat:not([data-waiting]) .cat-paper:visible")
    # two frames: what has been laid out is reported with the next one
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")
    assert sum(page.evaluate("window.shifts")) < 0.01
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]


@pytest.mark.parametrize("size", SIZES)
def test_the_first_screen_says_what_this_is_and_shows_it(page, size):
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    page.goto("")

    def bottom(selector):
        box = page.locator(selector).first.bounding_box()
        return box["y"] + box["height"]

    assert bottom("h1") < bottom(".home-lead") < height
    assert bottom(".home-claim") < height
    if size == "phone":  # the code begins
        assert page.locator(".home-example pre").bounding_box()["y"] < height - 100
    else:
        assert bottom(".home-example") < bottom(".home-ways") < height


@pytest.mark.parametrize(
    ("path", "scheme"), [("papers/#family=attention&q=xyzzy", "dark"), ("papers/#order=newest&note=yes", "light")]
)
def test_no_state_is_in_the_way_of_a_screen_reader(browser, address, path, scheme):
    context = browser.new_context(color_scheme=scheme, base_url=address)
    page = context.new_page()
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path)
        page.wait_for_load_state("networkidle")
        if width == 390:
            page.locator(".cat-fold").click()
        found = Axe().run(page, context={"include": [[".cat"], [".cat-intro"]]}).response["violations"]
        assert not [(rule["id"], [node["target"] for node in rule["nodes"]][:5]) for rule in found]
    context.close()
