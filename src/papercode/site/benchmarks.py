"""The rows of benchmarks/results as tables and series for a page."""

import csv
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

Row = dict[str, str]


def read(path: str | Path) -> list[Row]:
    """The rows of a file of results, of each measurement the newest only.

    Rows are appended with each run; the same work of the same provider on the same device is the same measurement.

    Raises:
        ValueError: If the file has no such rows.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("what", "provider", "shape", "dtype", "device", "threads")
    if not rows or not set(names) <= set(rows[0]):
        raise ValueError(f"{path} holds no rows with the columns {', '.join(names)}")
    newest: dict[tuple, Row] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        newest.pop(key, None)  # to the end: in the order of the last run
        newest[key] = row
    return list(newest.values())


def table(rows: Sequence[Row]) -> str:
    """An HTML table for each device, a body for each piece of work: provider, time, ratio, throughput, memory."""
    return "\n".join(
        _table(device, [row for row in rows if row["device"] == device]) for device in _all(rows, "device")
    )


def series(rows: Sequence[Row], column: str, x: Callable[[Row], float]) -> dict[str, tuple[list[float], list[float]]]:
    """Points (x, value of column) to plot, by provider, along rising x; rows without a value are left out."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for provider in _all(rows, "provider"):
        points = sorted((x(row), float(row[column])) for row in rows if row["provider"] == provider and row[column])
        if points:
            found[provider] = ([a for a, _ in points], [b for _, b in points])
    return found


def _all(rows: Sequence[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def _table(device: str, rows: Sequence[Row]) -> str:
    columns: dict[str, Callable[[Row], str]] = {
        "provider": lambda row: escape(row["provider"]),
        "time": lambda row: _time(float(row["p50_s"])),
        "ratio": lambda row: f"{float(row['ratio']):.2f}",
    }
    if any(row["tflops"] for row in rows):
        columns["TFLOP/s"] = lambda row: f"{float(row['tflops']):.0f}" if row["tflops"] else ""
    if any(float(row["peak_mib"]) for row in rows):  # what holds no tensors has none
        columns["peak memory"] = lambda row: f"{float(row['peak_mib']):,.1f}\N{NO-BREAK SPACE}MiB"
    threads = f", {_all(rows, 'threads')[-1]} thread" if device.startswith("CPU") else ""
    lines = [f"<table><caption>{escape(device + threads)}; {escape(rows[-1]['versions'])}</caption>"]
    lines += ["<thead><tr>", *(f"<th>{name}</th>" for name in columns), "</tr></thead>"]
    for work in dict.fromkeys((row["what"], row["shape"], row["dtype"]) for row in rows):
        title = f"{work[0]} · {work[1]} · {work[2]}"
        lines.append(f'<tbody><tr><th colspan="{len(columns)}" scope="rowgroup">{escape(title)}</th></tr>')
        for row in rows:
            if (row["what"], row["shape"], row["dtype"]) == work:
                lines.append(f"<tr>{''.join(f'<td>{cell(row)}</td>' for cell in columns.values())}</tr>")
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>"])


def _time(seconds: float) -> str:
    return f"{seconds:.2f}\N{NO-BREAK SPACE}s" if seconds >= 1 else f"{1000 * seconds:.3g}\N{NO-BREAK SPACE}ms"
