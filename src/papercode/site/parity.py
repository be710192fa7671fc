"""What the tests held against which reference, as a table for a page."""

import csv
import re
from html import escape
from pathlib import Path


def parity_table(path: str | Path) -> str:
    """An HTML table with a line for each model and reference: the largest error of all, and what was tried.

    What was held in float32 has a line of its own: its errors are those of rounding.

    Args:
        path: What `make parity` writes: model, reference, configuration, error and test.

    Raises:
        ValueError: If the file has no such rows.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"model", "reference", "configuration", "error", "test"} <= set(rows[0]):
        raise ValueError(f"{path} holds no rows of parity; `make parity` writes them")
    groups: dict[tuple, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: (row["model"].casefold(), row["reference"])):
        key = row["model"], row["reference"], "float32" in row["configuration"]
        groups.setdefault(key, []).append(row)
    lines = ["<table><thead><tr><th>model, reference</th><th>error</th><th>tried</th></tr></thead><tbody>"]
    for (model, reference, _), held in groups.items():
        name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\.)", "<wbr>", escape(reference))  # where a line may break
        error = _power(max(float(row["error"]) for row in held))
        tried = escape("; ".join(dict.fromkeys(row["configuration"] for row in held)))
        lines.append(f"<tr><td><strong>{escape(model)}</strong><br>{name}</td><td>{error}</td><td>{tried}</td></tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _power(error: float) -> str:
    if not error:
        return "0"
    digits, exponent = f"{error:.0e}".split("e")
    return f"{digits}\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}10<sup>{int(exponent)}</sup>".replace("-", "−")
