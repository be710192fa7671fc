"""Matplotlib figures as SVG text that is the same on every run."""

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("figure.mplstyle")


def svg(figure: "Figure") -> str:
    """Renders `figure` as one `<svg>` element and closes it.

    The background is transparent and the text is text, so that a page can show the figure on light and dark ground and
    a reader can search it. Print the result in a `python exec="on" html="on"` fence.
    """
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with plt.style.context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    # ids from the salt are stable; the prolog is for files, not for elements
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL).strip()
