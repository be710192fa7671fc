"""The colours of all figures, as colour-blind readers and those in the dark see them."""

import pytest

from papercode.site.colours import GROUNDS, contrast, dark, difference, parse
from papercode.site.figure_colours import figure_problems

BLUE, VERMILION, GREEN, PURPLE, OCHRE, SKY, BLACK, GREY = [
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#a18545",
    "#5094d3",
    "#000000",
    "#555555",
]


def line(colour, dash="", number=1):
    style = f"fill: none; stroke: {colour}" + (f"; stroke-dasharray: {dash}" if dash else "")
    return f'<g id="line2d_{number}"><path d="M 0 0" style="{style}"/></g>'


def drawing(*parts):
    return f'<svg xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'


# colours


def test_contrast_is_that_of_wcag():
    assert contrast(parse("#000000"), parse("#ffffff")) == pytest.approx(21)
    assert contrast(parse("#767676"), parse("#ffffff")) == pytest.approx(4.54, abs=0.01)


def test_red_and_green_of_one_lightness_are_alike_to_some():
    far, where = difference(parse("#b04040"), parse("#706a20"))
    assert far < 12
    assert "anopia" in where
    assert difference(parse(BLUE), parse(VERMILION))[0] > 50


def test_grey_stays_grey_in_every_eye():
    for ground, (_, shown) in GROUNDS.items():
        assert max(shown(parse("#777777"))) - min(shown(parse("#777777"))) < 0.01, ground
    assert difference(parse("#555555"), parse("#555555"))[0] == 0


# figures


def test_what_can_be_seen_and_told_apart_passes():
    colours = [BLUE, VERMILION, GREEN, PURPLE, OCHRE, SKY, BLACK, GREY]
    assert figure_problems(drawing(*(line(colour, number=n) for n, colour in enumerate(colours)))) == []


def test_too_pale_on_either_ground():
    assert figure_problems(drawing(line("#e69f00"))) == ["#e69f00 has contrast 2.25 on light ground, below 3"]
    assert [problem.split()[-4] for problem in figure_problems(drawing(line("#56b4e9")))] == ["light", "dark"]


def test_too_much_alike():
    (problem,) = figure_problems(drawing(line(GREEN), line("#777777", number=2)))
    assert problem.startswith("#009e73 and #777777 look alike (dark ground, deuteranopia)")


def test_a_dash_tells_lines_apart():
    assert figure_problems(drawing(line(GREEN), line("#777777", "4 2", number=2))) == []


def test_an_outline_can_be_seen_where_the_fill_is_pale():
    def shape(style):
        return drawing(f'<g id="patch_2"><path d="M 0 0" style="{style}"/></g>')

    assert figure_problems(shape("fill: #cfe3f0; stroke: #0072b2")) == []
    assert len(figure_problems(shape("fill: #cfe3f0"))) == 2


def test_scales_text_and_axes_are_no_marks():
    scale = "".join(f'<path style="fill: #ff{n:02x}00"/>' for n in range(0, 250, 20))
    ticks = '<g id="matplotlib.axis_1"><path style="stroke: #eeeeee"/></g><g id="text_1"><path style="fill: #eee"/></g>'
    assert figure_problems(drawing(f'<g id="QuadMesh_1">{scale}</g>', ticks)) == []


def test_opacity_counts():
    assert figure_problems(drawing('<g id="line2d_1"><path style="fill: none; stroke: #0072b2; opacity: 0.5"/></g>'))


def test_every_figure_of_the_site(whole_site):
    figures = sorted((whole_site / "assets/figures").glob("*.svg"))
    found = {path.name: problems for path in figures if (problems := figure_problems(path.read_text("utf-8")))}
    assert len(figures) > 100
    assert found == {}


@pytest.mark.browser
def test_the_browser_does_to_figures_what_is_computed_here(browser, address):
    context = browser.new_context(color_scheme="dark", base_url=address)
    page = context.new_page()
    page.goto("papers/attention/transformer/")
    image = page.locator("img[src*='assets/figures/']").first
    assert image.evaluate("image => getComputedStyle(image).filter") == "invert(0.9) hue-rotate(180deg)"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = (round(255 * part) for part in GROUNDS["dark"][0])
    assert ground == f"rgb({red}, {green}, {blue})"
    drawn = page.evaluate(
        """async (colour) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
          const context = canvas.getContext("2d");
          context.filter = "invert(0.9) hue-rotate(180deg)";
          context.fillStyle = colour;
          context.fillRect(0, 0, 1, 1);
          return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }""",
        VERMILION,
    )
    assert drawn == pytest.approx([255 * part for part in dark(parse(VERMILION))], abs=2)
    context.close()
