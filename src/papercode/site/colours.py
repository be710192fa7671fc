"""How colours look: to eyes that lack a kind of cone, on dark ground, against one another.

A colour is (red, green, blue) from 0 to 1 as sRGB writes it.
"""

import math
from collections.abc import Callable, Sequence

Colour = tuple[float, float, float]

# Machado, Oliveira and Fernandes (2009), A Physiologically-based Model for Simulation of Color Vision Deficiency,
# table 1: severity 1, on linear RGB
_VISION = {
    "full colour vision": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
# hue-rotate(180deg) as the Filter Effects Module of CSS defines it
_TURN = ((-0.574, 1.430, 0.144), (0.426, 0.430, 0.144), (0.426, 1.430, -0.856))
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)


def parse(text: str) -> Colour:
    """The colour that `#rrggbb` names."""
    red, green, blue = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def dark(colour: Colour) -> Colour:
    """What papercode.css makes of a figure's colour in the dark: `invert(0.9) hue-rotate(180deg)`."""
    return _clip(_times(_TURN, [0.9 - 0.8 * part for part in colour]))


GROUNDS: dict[str, tuple[Colour, Callable[[Colour], Colour]]] = {
    "light": ((1.0, 1.0, 1.0), lambda colour: colour),
    "dark": (parse("#1e2329"), dark),
}
"""The page's own colour on each ground (a browser test holds it), and what becomes of a figure's colour there."""


def contrast(one: Colour, other: Colour) -> float:
    """The contrast of two colours as WCAG defines it, from 1 to 21."""
    low, high = sorted(_times(_XYZ, _linear(colour))[1] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def distance(one: Colour, other: Colour) -> tuple[float, str]:
    """How far apart two colours look, at worst over kinds of eyes: ΔE (CIE 1976), and to which eyes."""
    found = []
    for eyes, matrix in _VISION.items():
        labs = [_lab(_clip(_times(matrix, _linear(colour)))) for colour in (one, other)]
        found.append((math.dist(*labs), eyes))
    return min(found)


def difference(one: Colour, other: Colour) -> tuple[float, str]:
    """How far apart two colours of a figure are, at worst over grounds and kinds of eyes: ΔE, and where."""
    found = []
    for ground, (_, shown) in GROUNDS.items():
        far, eyes = distance(shown(one), shown(other))
        found.append((far, f"{ground} ground, {eyes}"))
    return min(found)


def blend(colour: Colour, opacity: float, ground: Colour) -> Colour:
    """A colour that lets `ground` through."""
    red, green, blue = (opacity * c + (1 - opacity) * g for c, g in zip(colour, ground, strict=True))
    return red, green, blue


def _linear(colour: Colour) -> list[float]:
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]


def _lab(linear: Sequence[float]) -> tuple[float, float, float]:
    ratios = [value / white for value, white in zip(_times(_XYZ, linear), _WHITE, strict=True)]
    x, y, z = (r ** (1 / 3) if r > 216 / 24389 else (24389 / 27 * r + 16) / 116 for r in ratios)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _times(matrix: Sequence[Sequence[float]], colour: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix]


def _clip(colour: Sequence[float]) -> Colour:
    red, green, blue = (min(1.0, max(0.0, part)) for part in colour)
    return red, green, blue
