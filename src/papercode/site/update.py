"""Writes what snippets really print into the page, in place of what the author expected."""

from papercode.site.runner import Outcome, examples


def updated(text: str, outcome: Outcome) -> str:
    """`text` with the expected output of each failing example replaced by the actual one; examples that pass stay.

    A fence in which a script failed, or that did not run to its end, has no output to write and is left as it is.
    """
    lines = text.split("\n")
    for fence, result in reversed(list(zip(outcome.session.fences, outcome.results, strict=False))):
        pairs = list(zip(examples(fence), result["examples"], strict=False))
        for example, got in reversed(pairs):
            if got["ok"] or fence.language != "pycon":
                continue
            start = fence.line + example.lineno + example.source.count("\n")
            margin = fence.indent + " " * example.indent
            # a blank line would end the expected output
            actual = [margin + (line if line.strip() else "<BLANKLINE>") for line in got["got"].split("\n")[:-1]]
            lines[start : start + example.want.count("\n")] = actual
    return "\n".join(lines)
