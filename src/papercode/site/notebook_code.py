"""The executed fences of a note as cells of code, with what they were seen to give."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from doctest import Example
from itertools import pairwise
from typing import Any

from papercode.site.fences import Fence
from papercode.site.runner import examples

_OPTION = re.compile(r"[ \t]*#[ \t]*doctest:.*$", re.MULTILINE)


@dataclass
class Code:
    """A cell of code: its source, the outputs as nbformat has them but for their counts, and its tags."""

    source: str
    outputs: list[dict[str, Any]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


def claim_cells(fence: Fence) -> Iterator[Code]:
    """The cells of a claim: each ends with the example whose output the page shows, which becomes its output."""
    lines = fence.code.split("\n")
    pieces: list[str] = []
    end = 0
    for example in examples(fence):
        pieces += _comments(lines[end : example.lineno])
        pieces.append(_OPTION.sub("", example.source).rstrip())
        end = example.lineno + example.source.count("\n")
        if example.want:
            yield Code(_joined(pieces), [_output(example)], ["raises-exception"] if example.exc_msg else [])
            pieces = []
    if pieces := pieces + _comments(lines[end:]):
        yield Code(_joined(pieces))


def _comments(lines: list[str]) -> list[str]:
    """The comments on lines of their own, which are no examples to doctest."""
    return [line.removeprefix(">>> ") for line in lines if line.startswith(">>> #")]


def _joined(pieces: list[str]) -> str:
    """The pieces one below the other, definitions with a line of air."""
    text = pieces[0]
    for before, after in pairwise(pieces):
        airy = any(re.match(r"@|def |class |async def ", piece) for piece in (before, after))
        text += ("\n\n" if airy and not before.startswith("#") else "\n") + after
    return text


def _output(example: Example) -> dict[str, Any]:
    """What is written below an example: printed, an exception, or the value of its last statement."""
    text = example.want.replace("<BLANKLINE>", "").rstrip("\n")
    if example.exc_msg:
        name, _, message = example.exc_msg.strip().partition(": ")
        return {"output_type": "error", "ename": name, "evalue": message, "traceback": text.split("\n")}
    if _is_value(example.source):
        return {"output_type": "execute_result", "data": {"text/plain": text}, "metadata": {}}
    return {"output_type": "stream", "name": "stdout", "text": f"{text}\n"}


def _is_value(source: str) -> bool:
    """Whether the last statement is an expression, other than a call of print, whose value Python would echo."""
    try:
        last = ast.parse(source).body[-1]
    except SyntaxError:  # which is what the example is about, or the check says so
        return False
    if not isinstance(last, ast.Expr):
        return False
    return not (isinstance(last.value, ast.Call) and getattr(last.value.func, "id", "") == "print")


def figure_cells(fence: Fence, printed: str | None) -> Iterator[Code]:
    """The cells of a figure or table, which prints SVG or HTML: Jupyter has to be told to show it.

    Args:
        fence: a fence whose output is markup.
        printed: what it printed when the site was built; None if it failed.
    """
    printed = printed.strip() if printed else ""
    is_svg = printed.startswith("<svg") or (not printed and "svg" in fence.code)
    kind, mime = ("SVG", "image/svg+xml") if is_svg else ("HTML", "text/html")
    shown = {"text/plain": f"<IPython.core.display.{kind} object>", mime: printed}
    outputs = [{"output_type": "execute_result", "data": shown, "metadata": {}}] if printed else []
    code = fence.code.strip("\n")
    if direct := _shown_directly(code, kind):
        yield Code(direct, outputs)
    else:
        yield Code(f"%%capture shown\n{code}")
        yield Code(f"{kind}(shown.stdout)", outputs)


def _shown_directly(code: str, kind: str) -> str | None:
    """`code` with its last statement, `print(x)`, made `SVG(x)`; None if it prints in any other way."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return None
    prints = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "print"]
    last = tree.body[-1] if tree.body else None
    call = last.value if isinstance(last, ast.Expr) else None
    if not (isinstance(call, ast.Call) and len(prints) == 1 and call.func is prints[0]):
        return None
    if len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.Starred):
        return None
    lines = code.split("\n")
    lines[call.lineno - 1] = f"{kind}{lines[call.lineno - 1].removeprefix('print')}"
    return "\n".join(lines)


def printed_cells(fence: Fence, printed: str | None) -> Iterator[Code]:
    """The cell of any other fence: what it prints is text."""
    outputs = [{"output_type": "stream", "name": "stdout", "text": printed}] if printed else []
    yield Code(fence.code.strip("\n"), outputs)
