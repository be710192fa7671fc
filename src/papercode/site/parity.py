"""What the tests held against which reference, as a table for a page."""

import csv
from html import escape
from pathlib import Path


def parity_table(path: str | Path) -> str:
    """An HTML table with a line for each model and reference: what was tried, and the largest error of all.

    Args:
        path: What `make parity` writes: model, reference, configuration, error and test.

    Raises:
        ValueError: If the file has no such rows.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"model", "reference", "configuration", "error", "test"} <= set(rows[0]):
        raise ValueError(f"{path} holds no rows of parity; `make parity` writes them")
    lines = [
        "<table><thead><tr><th>model</th><th>reference</th><th>tried</th><th>largest error</th></tr></thead><tbody>"
    ]
    for model, reference in dict.fromkeys((row["model"], row["reference"]) for row in rows):
        held = [row for row in rows if (row["model"], row["reference"]) == (model, reference)]
        tried = "; ".join(dict.fromkeys(row["configuration"] for row in held))
        error = max(float(row["error"]) for row in held)
        cells = (escape(model), escape(reference).replace(".", ".<wbr>"), escape(tried), _power(error))
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _power(error: float) -> str:
    if not error:
        return "0"
    digits, exponent = f"{error:.0e}".split("e")
    return f"{digits}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}10<sup>{int(exponent)}</sup>".replace("-", "−")
