"""Runs a notebook in a fresh kernel and says where it gives something else than what stands in it."""

import os
from pathlib import Path
from xml.etree import ElementTree

import nbformat
from nbclient import NotebookClient

from papercode.site.outputs import OPTIONS, OutputChecker
from tiny import ROOT

CHECKER = OutputChecker()


def said(cell):
    """The text that a cell gave, and its markup."""
    text, markup = "", []
    for output in cell.outputs:
        if output.output_type == "error":
            text += f"{output.ename}: {output.evalue}".removesuffix(": ") + "\n"
        elif output.output_type == "stream":
            text += output.text if output.name == "stdout" else ""  # warnings are no part of the page
        else:
            markup += [output.data[mime] for mime in ("image/svg+xml", "text/html") if mime in output.data]
            text += f"{output.data['text/plain']}\n"
    return text, [parts(each) if each.startswith("<svg") else each.strip() for each in markup]


def parts(svg):
    """What a picture is made of, and its words; widths of text, and places with them, depend on who measures."""
    return [(element.tag, (element.text or "").strip()) for element in ElementTree.fromstring(svg).iter()]


def differences(text, folder: Path, source: Path = ROOT / "src", seconds=120):
    """What each cell of the notebook `text` gives when run in `folder`, where that is not what it says."""
    stored = nbformat.reads(text, as_version=4)
    book = nbformat.reads(text, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(book, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    environment = {**os.environ, "PYTHONPATH": str(source), "IPYTHONDIR": str(folder / ".ipython")}
    client.execute(env=environment)
    found = []
    for old, new in zip(stored.cells, book.cells, strict=True):
        if old.cell_type != "code":
            continue
        (want, pictures), (got, drawn) = said(old), said(new)
        if not CHECKER.check_output(want, got, OPTIONS) or pictures != drawn:
            found.append(f"{old.source}\nExpected:\n{want}{pictures}\nGot:\n{got}{drawn}"[:3000])
    return found
