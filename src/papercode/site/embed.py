"""Puts what the snippets of a page gave into its Markdown, which any Markdown tool can then render."""

import html
import re
from collections.abc import Callable, Iterator
from textwrap import indent

from markdown_exec import add_source, code_block

from papercode.site.fences import Fence, fences
from papercode.site.problem import Problem
from papercode.site.runner import LANGUAGES, Outcome

# what markdown-exec understands; the first row changes what is shown, the second is about other ways of running
SHOWN = {"exec", "html", "source", "result", "title", "alt", "tabs", "id"}
IGNORED = {"session", "idprefix", "updatetoc", "width", "returncode", "workdir"}
_HIGHLIGHT = {"hl_lines", "linenums"}

HTML_FENCE = "html-output"


def embed(text: str, outcome: Outcome, figure: Callable[[str], str]) -> str:
    """`text` with each executed fence replaced by what readers are to see.

    A claim (`pycon`) stays as the author wrote it; a figure or table (`html="on"`) takes the place of its source, which
    is folded below it; what went wrong stands under the fence.

    Args:
        text: the page's Markdown.
        outcome: what its session gave.
        figure: stores an SVG as a file of the site and gives the link to it, relative to the page's source.
    """
    lines = text.split("\n")
    shown = list(_rendered(outcome, figure))
    for fence, markdown in reversed(shown):
        # the lines that a block needs before and after it, indented as the fence was
        block = indent("\n" + markdown.strip("\n") + "\n", fence.indent, lambda line: True)
        lines[fence.line - 1 : fence.end] = block.split("\n")
    return "\n".join(lines)


def _rendered(outcome: Outcome, figure: Callable[[str], str]) -> Iterator[tuple[Fence, str]]:
    for index, fence in enumerate(outcome.session.fences):
        result = outcome.results[index] if index < len(outcome.results) else {"output": ""}
        failed = outcome.failures(index)
        if fence.language == "pycon":
            markdown = _block("pycon", fence.code.rstrip("\n"), fence)
        elif fence.html:
            markdown = _figure(fence, result["output"], figure)
        else:
            markdown = _printed(fence, result["output"])
        yield fence, "\n\n".join([markdown, *(_failure(problem) for problem in failed)])


def _block(language: str, code: str, fence: Fence) -> str:
    extra = {k: v for k, v in fence.options.items() if k in _HIGHLIGHT or k == "title"}
    return code_block(language, code, **extra)


def _printed(fence: Fence, output: str) -> str:
    """What markdown-exec would show: the output as Markdown, with the source where `source` says."""
    result = fence.options.get("result", "")
    location = fence.options.get("source", "")
    if result and location != "console":
        output = code_block(result, output.rstrip("\n"))
    if not location:
        return output
    left, _, right = fence.options.get("tabs", "Source|Result").partition("|")
    return add_source(
        source=fence.code.rstrip("\n"),
        location="block" if location == "material-block" else location,
        output=output.rstrip("\n"),
        language="python",
        tabs=(left, right),
        result=result,
    )


def _figure(fence: Fence, output: str, figure: Callable[[str], str]) -> str:
    output = output.strip()
    caption = fence.options.get("title", "")
    if output.startswith("<svg"):
        attributes = "loading=lazy"
        for side in ("width", "height"):  # so that the page does not jump when the picture arrives
            if found := re.search(rf'^<svg[^>]* {side}="([\d.]+)pt"', output):
                attributes += f" {side}={float(found[1]) * 96 / 72:.0f}"
        alt = fence.options.get("alt", caption).replace("[", "(").replace("]", ")")
        shown = f"![{alt}]({figure(output)}){{ {attributes} }}"
    else:
        shown = f"```{HTML_FENCE}\n{output}\n```"
    if caption:
        shown += f"\n\n/// caption\n{caption}\n///"
    if fence.options.get("source", "folded") in {"no", "off"}:
        return shown
    folded = '??? source "Code"\n\n' + indent(code_block("python", fence.code.rstrip("\n")), "    ")
    return f"{shown}\n\n{folded}"


def _failure(problem: Problem) -> str:
    first, *rest = str(problem.message).split("\n")
    body = "\n".join(rest)
    text = f"`{problem.path.name}:{problem.line}`: {html.escape(first)}"
    if body:
        text += f"\n\n{code_block('text', body)}"
    return '!!! failure "This snippet does not do what it says"\n\n' + indent(text, "    ")


def check_fences(path: object, text: str) -> Iterator[Problem]:
    """What is wrong with the executed fences of a page, before running them."""
    for fence in fences(text):
        if not fence.closed:
            yield Problem(path, fence.line, "this fence is never closed")  # type: ignore[arg-type]
        if not fence.executed:
            continue
        unknown = set(fence.options) - SHOWN - IGNORED - _HIGHLIGHT
        message = None
        if fence.language not in LANGUAGES:
            message = f"cannot run {fence.language!r}: only {', '.join(LANGUAGES)} fences are executed"
        elif unknown:
            message = f"unknown fence option {', '.join(sorted(unknown))}; known are {', '.join(sorted(SHOWN))}"
        elif fence.language == "pycon" and ">>>" not in fence.code:
            message = "a pycon fence without a `>>>` prompt checks nothing"
        elif "+SKIP" in fence.code:
            message = "an example that is skipped proves nothing: remove `+SKIP`"
        elif fence.html and "svg" in fence.code and not {"title", "alt"} <= set(fence.options):
            message = 'a figure needs a caption and a text for blind readers: title="…" alt="…"'
        if message:
            yield Problem(path, fence.line, message)  # type: ignore[arg-type]
