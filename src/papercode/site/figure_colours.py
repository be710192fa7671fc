"""Whether the colours of a figure can be seen and told apart by every reader, on light and on dark ground."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from papercode.site.colours import GROUNDS, blend, contrast, difference, parse

CONTRAST = 3.0
"""What a line or a mark must have against the page (WCAG 1.4.11)."""

DIFFERENCE = 10.0
"""How far apart two colours must look (ΔE 1976) that a reader has to tell apart; about 2 can just be noticed."""

_SVG = "{http://www.w3.org/2000/svg}"
_SHAPES = {_SVG + name for name in ("path", "use", "rect", "circle", "polygon")}
_NO_MARKS = re.compile(r"(?:matplotlib\.axis|text|colorbar)")
_Style = dict[str, str]
_SOLID = {"fill": 0.75, "stroke": 0.5}  # below this opacity it is a ground or a shade
_SCALE = 8  # more fills than this in one kind of mark are a scale, which is read against its bar


@dataclass(frozen=True)
class Mark:
    """How some shapes of a figure look: lines of one colour and dash, or shapes of one fill and outline."""

    colour: str
    dash: str = ""
    outline: str = ""


def figure_problems(svg: str) -> list[str]:
    """What of a figure, an SVG that matplotlib wrote, some readers cannot see or tell apart.

    Heat maps and other scales, text, axes and areas that let the ground through are left out; so are pairs of lines
    with different dashes and pairs of pale fills, which tell nothing by their colour alone.
    """
    marks = sorted(set(_marks(svg)), key=lambda mark: (mark.colour, mark.dash, mark.outline))
    found = []
    for mark in marks:
        for name, (ground, shown) in GROUNDS.items():
            seen = max(contrast(shown(parse(c)), ground) for c in (mark.colour, mark.outline or mark.colour))
            if seen < CONTRAST:
                found.append(f"{mark.colour} has contrast {seen:.2f} on {name} ground, below {CONTRAST:g}")
    for one, other in itertools.combinations(marks, 2):
        if one.colour == other.colour or one.dash != other.dash or (_pale(one) and _pale(other)):
            continue
        far, where = difference(parse(one.colour), parse(other.colour))
        if far < DIFFERENCE:
            found.append(f"{one.colour} and {other.colour} look alike ({where}): {far:.1f} apart, below {DIFFERENCE:g}")
    return list(dict.fromkeys(found))


def _pale(mark: Mark) -> bool:
    return bool(mark.outline) and contrast(parse(mark.colour), (1.0, 1.0, 1.0)) < 1.6


def _marks(svg: str) -> Iterator[Mark]:
    groups: dict[str, list[Mark]] = {}
    for group, style in _styles(ElementTree.fromstring(svg), "", {}):
        fill, stroke = (_colour(style, part) for part in ("fill", "stroke"))
        if fill:
            groups.setdefault(group, []).append(Mark(fill, outline=stroke or ""))
        elif stroke:
            groups.setdefault(group, []).append(Mark(stroke, re.sub(r"\s", "", style.get("stroke-dasharray", ""))))
    for marks in groups.values():
        if len({mark.colour for mark in marks}) <= _SCALE:
            yield from marks


def _styles(
    element: ElementTree.Element, group: str, inherited: dict[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The kind of mark and the style of every shape that is drawn."""
    if element.tag in (_SVG + "defs", _SVG + "clipPath", _SVG + "metadata"):
        return
    name = element.get("id") if element.tag == _SVG + "g" else None
    if name and _NO_MARKS.match(name):
        return
    group = re.sub(r"_\d+$", "", name) if name else group
    own = dict(part.split(":", 1) for part in (element.get("style") or "").split(";") if ":" in part)
    style = {**inherited, **{key.strip(): value.strip() for key, value in own.items()}}
    if element.tag in _SHAPES:
        yield group, style
    for child in element:
        yield from _styles(child, group, {k: v for k, v in style.items() if k in ("fill", "stroke")})


def _colour(style: dict[str, str], part: str) -> str | None:
    """What a fill or stroke looks like on white; None if there is none to speak of."""
    value = style.get(part, "none")
    opacity = float(style.get("opacity", 1)) * float(style.get(f"{part}-opacity", 1))
    if not re.fullmatch("#[0-9a-fA-F]{6}", value) or value.lower() == "#ffffff" or opacity < _SOLID[part]:
        return None
    red, green, blue = blend(parse(value), opacity, (1.0, 1.0, 1.0))
    return "#" + "".join(f"{round(255 * c):02x}" for c in (red, green, blue))
