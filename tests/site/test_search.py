"""The search of the site, as a reader uses it: words, identifiers, authors, keys, Chinese terms."""

import pytest
from queries import results, unanswered

pytestmark = pytest.mark.browser


def test_what_readers_type_leads_to_the_right_page(page):
    page.goto("reading/")
    assert unanswered(page) == {}


def test_the_search_works_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("reading/")
    page.locator(".md-header__button[for=__search]").click()
    assert results(page, "残差连接")[0] == "papers/convolutional/resnet"
    page.locator(".md-search-result__item a").first.click()
    page.locator("h1", has_text="ResNet").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
