"""A note as a Jupyter notebook that runs as it is: its prose, its snippets as cells, and what they gave."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from papercode.site.fences import Fence
from papercode.site.header import page_of
from papercode.site.notebook_code import Code, claim_cells, figure_cells, printed_cells
from papercode.site.notebook_text import Converter, parts
from papercode.site.notes import Note, body_lines
from papercode.site.places import Places
from papercode.site.project import Project
from papercode.site.runner import Outcome

# as a page is run: see worker.py
_SEEDED = """\
# As on the page: seeded, on one thread, values echoed as at Python's prompt{style}.
%config InteractiveShell.ast_node_interactivity = "last"
%config PlainTextFormatter.pprint = False
import random

{imports}
random.seed(0)
np.random.seed(0)
torch.manual_seed(0)
torch.set_num_threads(1){use}"""

_PLAIN = "import numpy as np\nimport torch\n"
_DRAWING = """\
import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, SVG

from papercode.site.figure import STYLE
"""

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


def notebook_of(note: Note) -> str:
    """The notebook of a note among the files of the site."""
    return f"papers/{note.name}.ipynb"


def notebook(note: Note, outcome: Outcome, project: Project, places: Places) -> str:
    """The notebook of `note`, as the text of an .ipynb file; the same bytes for the same note and outcome.

    Args:
        note: the note.
        outcome: what its snippets gave.
        project: the bibliography and the modules.
        places: where links lead: whoever opens the file has neither the site nor the repository.
    """
    import nbformat

    taken: dict[str, int] = {}
    cells: list[Any] = []
    executed = 0
    for part in _parts(note, outcome, project, places):
        source = part.source if isinstance(part, Code) else part
        name = _id(source, taken)
        if isinstance(part, str):
            cells.append(nbformat.v4.new_markdown_cell(source, id=name))
            continue
        executed += 1
        outputs = [
            nbformat.from_dict(output | ({"execution_count": executed} if "data" in output else {}))
            for output in part.outputs
        ]
        metadata = {"tags": part.tags} if part.tags else {}
        cell = nbformat.v4.new_code_cell(source, id=name, outputs=outputs, metadata=metadata, execution_count=executed)
        cells.append(cell)
    book = nbformat.v4.new_notebook(cells=cells, metadata=nbformat.from_dict(_METADATA))
    book.nbformat_minor = 5
    nbformat.validate(book)
    return nbformat.writes(book) + "\n"


def _id(source: str, taken: dict[str, int]) -> str:
    """A name for a cell that is made from its text; of equal cells the later ones are numbered."""
    name = hashlib.sha256(source.encode()).hexdigest()[:12]
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"


def _parts(note: Note, outcome: Outcome, project: Project, places: Places) -> Iterator[str | Code]:
    lines = note.text.split("\n")
    headings = [re.sub(r"^#+ +", "", line) for line in body_lines(note.text) if re.match(r"#{2,6} ", line)]
    convert = Converter(page_of(note), places, project.bibliography, headings)
    title = next((n for n, line in enumerate(body_lines(note.text)) if line.startswith("# ")), -1)
    text = "\n".join([*[""] * (title + 1), *lines[title + 1 :]])  # line numbers stay true
    yield _first(note, project, places)
    yield _setup(any(fence.html for fence in outcome.session.fences))
    for part in parts(text, outcome.session.fences, convert):
        if isinstance(part, str):
            yield part
        else:
            yield from _code(part, outcome, convert)


def _code(fence: Fence, outcome: Outcome, convert: Converter) -> Iterator[str | Code]:
    if fence.language == "pycon":
        yield from claim_cells(fence)
        return
    index = outcome.session.fences.index(fence)
    done = index < len(outcome.results) and not outcome.results[index]["error"]
    printed: str | None = outcome.results[index]["output"] if done else None
    if not fence.html:
        yield from printed_cells(fence, printed)
        return
    yield from figure_cells(fence, printed)
    if caption := fence.options.get("title"):
        yield re.sub(r"^((?:Figure|Table) \w+\.)", r"**\1**", convert(caption))


def _setup(draws: bool) -> str | Code:
    return Code(
        _SEEDED.format(
            style=", figures in its style" if draws else "",
            imports=_DRAWING if draws else _PLAIN,
            use="\nplt.style.use(STYLE)" if draws else "",
        )
    )


def _first(note: Note, project: Project, places: Places) -> str:
    """The first cell: which paper, which page, what to install, under which licence."""
    lines = [f"# {note.title}", ""]
    if entry := project.bibliography.get(note.key):
        authors = ", ".join(entry.author_names)
        published = ", ".join(filter(None, [entry.source, str(entry.year or "")]))
        links = " · ".join(f"[{name}]({url})" for name, url in entry.links)
        lines += [f"**{entry.title}**  ", f"{authors}  ", f"{published}{f' · {links}' if links else ''}", ""]
    page = places.page(page_of(note))
    name = f"[the note on {note.title}]({page})" if page else f"the note on {note.title}"
    wanted = f"papercode[site] @ git+{places.repository}" if places.repository else "papercode[site]"
    lines += [
        f"This is {name} as a notebook. The outputs that stand here were checked when it was made; "
        "`...` in one stands for anything. To run it, install papercode, which brings PyTorch:",
        "",
        f'```sh\npip install "{wanted}"\n```',
    ]
    if places.licence:
        address = places.file("LICENSE")
        lines += [
            "",
            f"Text and code: [{places.licence}]({address})." if address else f"Text and code: {places.licence}.",
        ]
    return "\n".join(lines)
