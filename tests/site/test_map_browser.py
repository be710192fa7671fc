"""The map in a browser: pointing, walking with the keyboard, touching, and reading it in every size and light."""

from itertools import combinations

import pytest
from axe_playwright_python.sync_playwright import Axe

from papercode.site.notes import FAMILIES
from papercode.site.project import Project
from tiny import ROOT

pytestmark = pytest.mark.browser

BERT, LORA, TRANSFORMER = "devlin2019bert", "hu2022lora", "vaswani2017attention"
LIT = """() => Object.fromEntries(["on", "up", "down"].map((kind) =>
    [kind, [...document.querySelectorAll(`.lineage-year a.${kind}`)].map((paper) => paper.id)]))"""
NOTHING = {"on": [], "up": [], "down": []}


@pytest.fixture(scope="module")
def collection():
    return Project(ROOT).collection


@pytest.fixture
def the_map(page):
    """The map, ready to be used, on a wide screen."""
    page.set_viewport_size({"width": 1440, "height": 900})
    return opened(page)


@pytest.fixture
def phone(browser, address):
    """The map under a finger."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url=address, has_touch=True)
    yield opened(context.new_page())
    context.close()


def opened(page, address="map/"):
    page.goto(address)
    page.wait_for_selector(".lineage[data-ready]")
    return page


def paper(page, key):
    found = page.locator(f".lineage-year a#{key}")
    found.scroll_into_view_if_needed()
    return found


def family_tree(collection, key):
    """Ancestors and descendants, from the front matter alone, in the order of time."""

    def closure(start, step):
        found, waiting = set(), [start]
        while waiting:
            fresh = set(step(waiting.pop())) - found
            found |= fresh
            waiting += fresh
        return [other for other in collection if other in found]

    def children(one):
        return [other.key for other in collection.values() if one in other.builds_on]

    return {"on": [key], "up": closure(key, lambda one: collection[one].builds_on), "down": closure(key, children)}


@pytest.mark.parametrize("key", [LORA, BERT, "taylor1953cloze"])
def test_pointing_at_a_paper_lights_its_ancestors_and_descendants_and_no_other(the_map, collection, key):
    paper(the_map, key).hover()
    the_map.wait_for_selector(f".lineage.lit a.on#{key}")
    expected = family_tree(collection, key)
    assert the_map.evaluate(LIT) == expected
    edges = the_map.evaluate(
        """() => { const ids = [...document.querySelectorAll(".lineage-year a")].map((paper) => paper.id);
        return Object.fromEntries(["up", "down"].map((kind) => [kind,
            [...document.querySelectorAll(`[data-edge].${kind}`)].map((path) =>
                path.dataset.edge.split(" ").map((n) => ids[n]).join(">")).sort()])); }"""
    )
    lineage = [(older, new) for new, p in collection.items() for older in p.builds_on]
    up, down = {key, *expected["up"]}, {key, *expected["down"]}
    assert edges["up"] == sorted(f"{older}>{new}" for older, new in lineage if new in up)
    assert edges["down"] == sorted(f"{older}>{new}" for older, new in lineage if older in down)


def test_the_card_says_who_what_and_where_it_stands(the_map, collection):
    paper(the_map, LORA).hover()
    card = the_map.locator(".lineage-card")
    card.wait_for()
    text = card.inner_text()
    assert text.split("\n")[0] == "LoRA Hu et al., 2021, Adaptation"
    assert collection[LORA].contribution in text
    assert "Builds on Adapters · GPT-2" in text
    assert "Built on by AdaLoRA" in text
    paper(the_map, BERT).hover()
    the_map.wait_for_function("document.querySelector('.lineage-card a').textContent === 'BERT'")
    children = [p.name for p in collection.values() if BERT in p.builds_on]
    assert f"Built on by {' · '.join(children[:12])} · and {len(children) - 12} more" in card.inner_text()
    paper(the_map, "taylor1953cloze").hover()
    the_map.wait_for_function("document.querySelector('.lineage-card a').textContent === 'Cloze'")
    assert "Buil" not in card.inner_text()


def test_the_card_stays_while_one_reads_it_and_goes_when_one_leaves(the_map):
    the_map.evaluate(
        """() => {
        const waiting = new Map(); // no timer runs out by itself
        window.setTimeout = (run) => { const number = waiting.size + 1; waiting.set(number, run); return number; };
        window.clearTimeout = (number) => waiting.set(number, () => {});
        window.later = () => { const all = [...waiting.values()]; waiting.clear(); all.forEach((run) => run()); };
        }"""
    )
    card = the_map.locator(".lineage-card")
    paper(the_map, LORA).hover()
    card.wait_for()
    card.hover()
    the_map.evaluate("later()")
    assert card.is_visible()
    the_map.locator(".lineage-key").hover()
    assert card.is_visible()
    the_map.evaluate("later()")
    assert card.is_hidden()
    assert the_map.evaluate(LIT) == NOTHING


@pytest.mark.parametrize(
    ("key", "to"), [(LORA, "papers/adaptation/lora/"), ("taylor1953cloze", "bibliography/#taylor1953cloze")]
)
def test_a_click_opens_the_note_or_the_reference(the_map, address, key, to):
    paper(the_map, key).click()
    the_map.wait_for_url(f"{address}{to}")
    assert the_map.locator("h1").first.inner_text().rstrip("¶") in {"LoRA", "Bibliography"}


def test_one_tab_enters_and_arrows_walk_the_lanes(the_map, collection):
    lane = [key for key, p in collection.items() if p.family == "adaptation"]
    assert the_map.locator(".lineage-year a[tabindex='0']").count() == 1
    paper(the_map, LORA).focus()
    assert the_map.evaluate(LIT) == family_tree(collection, LORA)
    focused = "document.activeElement.id"
    walks = {
        "ArrowLeft": lane[lane.index(LORA) - 1], "ArrowRight": LORA, "Home": lane[0], "End": lane[-1],
    }  # fmt: skip
    for key, expected in walks.items():
        the_map.keyboard.press(key)
        assert the_map.evaluate(focused) == expected, key
        assert the_map.evaluate(LIT)["on"] == [expected]
    the_map.keyboard.press("ArrowRight")  # at the end: stays
    assert the_map.evaluate(focused) == lane[-1]
    families = [family for family in FAMILIES if any(p.family == family for p in collection.values())]
    for key, step in (("ArrowUp", -1), ("ArrowDown", 1), ("ArrowDown", 1)):
        before = collection[the_map.evaluate(focused)]
        the_map.keyboard.press(key)
        after = collection[the_map.evaluate(focused)]
        assert families.index(after.family) == families.index(before.family) + step
    assert the_map.locator(".lineage-year a[tabindex='0']").count() == 1
    the_map.keyboard.press("Escape")
    assert the_map.evaluate(LIT) == NOTHING
    assert the_map.locator(".lineage-card").is_hidden()


def test_every_paper_can_be_reached_with_the_arrows(the_map, collection):
    the_map.locator(".lineage-year a").first.focus()
    seen = set()
    for _ in range(len(FAMILIES)):
        the_map.keyboard.press("ArrowUp")
    for _ in range(len(FAMILIES)):
        the_map.keyboard.press("Home")
        while (key := the_map.evaluate("document.activeElement.id")) not in seen:
            seen.add(key)
            the_map.keyboard.press("ArrowRight")
        the_map.keyboard.press("ArrowDown")
    assert seen == set(collection)


def test_enter_opens_what_is_focused_and_tab_leads_on_to_the_card(the_map, address):
    paper(the_map, LORA).focus()
    the_map.keyboard.press("Tab")
    assert the_map.evaluate("document.activeElement.closest('.lineage-card') !== null")
    assert the_map.locator(".lineage-card").is_visible()
    the_map.keyboard.press("Enter")
    the_map.wait_for_url(f"{address}papers/adaptation/lora/")


def test_a_family_can_be_picked_and_let_go(the_map, collection):
    button = the_map.get_by_role("button", name="Alignment")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert the_map.evaluate(LIT)["on"] == [key for key, p in collection.items() if p.family == "alignment"]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert the_map.evaluate(LIT) == NOTHING


def test_an_address_with_a_paper_opens_the_map_there(page, collection):
    page.set_viewport_size({"width": 820, "height": 900})
    opened(page, f"map/#{LORA}")
    assert page.evaluate(LIT) == family_tree(collection, LORA)
    box = page.locator(f"a#{LORA}").bounding_box()
    assert 0 < box["x"] < 820 - box["width"]
    assert 0 < box["y"] < 900


def test_a_note_leads_to_its_place_on_the_map(page, collection):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("papers/adaptation/lora/")
    page.get_by_role("navigation", name="Lineage").get_by_role("link", name="on the map").click()
    page.wait_for_url(f"**/map/#{LORA}")
    page.wait_for_selector(f".lineage.lit a.on#{LORA}")
    assert page.evaluate(LIT) == family_tree(collection, LORA)


def test_the_map_lives_when_the_page_is_swapped_in(the_map, collection):
    the_map.evaluate(
        """() => {
        const old = document.querySelector(".lineage");
        const fresh = old.cloneNode(true);
        delete fresh.dataset.ready;
        old.replaceWith(fresh);
        document$.next(document);
        }"""
    )
    paper(the_map, LORA).hover()
    the_map.wait_for_selector(f".lineage.lit a.on#{LORA}")
    assert the_map.evaluate(LIT) == family_tree(collection, LORA)


def test_the_first_touch_shows_and_the_second_opens(phone, address, collection):
    phone.evaluate("document.body.addEventListener('click', () => { window.heard = true; })")  # as Material listens
    paper(phone, BERT).tap()
    phone.wait_for_selector(".lineage-card:not([hidden])")
    assert not phone.evaluate("window.heard")
    assert phone.url == f"{address}map/"
    assert phone.evaluate(LIT) == family_tree(collection, BERT)
    box = phone.locator(".lineage-card").bounding_box()
    assert box["x"] == 0
    assert box["width"] == 390
    assert abs(box["y"] + box["height"] - 844) < 1
    phone.locator("h1").tap()
    phone.wait_for_selector(".lineage-card", state="hidden")
    paper(phone, TRANSFORMER).tap()
    phone.wait_for_selector(f"a.on#{TRANSFORMER}")
    paper(phone, TRANSFORMER).tap()
    phone.wait_for_url(f"{address}papers/attention/transformer/")


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_no_two_papers_overlap_and_the_page_does_not_scroll_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    opened(page)
    boxes = page.locator(".lineage-year a").evaluate_all(
        "links => links.map((a) => { const r = a.getBoundingClientRect(); return [r.left, r.right, r.top, r.bottom]; })"
    )
    for one, other in combinations(boxes, 2):
        apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
        assert apart, (one, other)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    size = page.locator(".lineage-year a").first.evaluate("(a) => parseFloat(getComputedStyle(a).fontSize)")
    assert size >= 11
    if width == 390:
        assert page.locator(".lineage-box").evaluate("(box) => box.scrollWidth <= box.clientWidth")
        assert page.locator(".lineage-table").evaluate("(table) => table.scrollWidth") <= 390


def test_dots_stand_where_the_lines_end(the_map):
    """The HTML and the SVG measure alike: the middle of each dot is where its lines begin or end."""
    gaps = the_map.evaluate(
        """() => {
        const papers = [...document.querySelectorAll(".lineage-year a")];
        const middle = (paper) => {
            const box = paper.getBoundingClientRect();
            const dot = parseFloat(getComputedStyle(paper).fontSize) * 0.4;
            const x = paper.classList.contains("before") ? box.right - dot : box.left + dot;
            return [x, (box.top + box.bottom) / 2];
        };
        return [...document.querySelectorAll("[data-edge]")].flatMap((path) => {
            const ends = [path.getPointAtLength(0), path.getPointAtLength(path.getTotalLength())];
            return path.dataset.edge.split(" ").map((number, end) => {
                const point = ends[end].matrixTransform(path.getScreenCTM());
                const [x, y] = middle(papers[number]);
                return Math.hypot(point.x - x, point.y - y);
            });
        }); }"""
    )
    assert len(gaps) > 400
    assert max(gaps) < 2


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_many_neighbours_have_no_accessibility_violations(browser, address, scheme, width):
    context = browser.new_context(viewport={"width": width, "height": 900}, base_url=address, color_scheme=scheme)
    page = context.new_page()
    page.goto("papers/encoders/bert/")
    page.wait_for_load_state("networkidle")
    found = Axe().run(page, context={"include": [[".kin"]]})
    assert found.violations_count == 0, found.generate_report()
    context.close()


def test_without_javascript_papers_are_links_and_the_table_is_there(browser, address, collection):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1440, "height": 900}, base_url=address)
    page = context.new_page()
    page.goto("map/")
    assert page.locator(".lineage-year a:visible").count() == len(collection)
    assert page.locator(".lineage-table tbody tr:visible").count() == len(collection)
    page.locator(f"a#{LORA}").click()
    page.wait_for_url(f"{address}papers/adaptation/lora/")
    context.close()


@pytest.mark.parametrize("path", ["map/", "papers/encoders/bert/"])
def test_nothing_moves_while_the_page_loads(page, path):
    page.add_init_script(
        """window.moved = []; new PerformanceObserver((list) => window.moved.push(...list.getEntries()
        .filter((entry) => entry.sources.some(({ node }) => node?.parentElement?.closest(".lineage, .kin")))))
        .observe({ type: "layout-shift", buffered: true });"""
    )
    page.goto(path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.moved.reduce((sum, entry) => sum + entry.value, 0)") == 0
