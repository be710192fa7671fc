"""What an import brings: the source of each symbol, folded below the first claim that imports or uses it.

The page holds the names and links to the API pages; the sources themselves are one small file a module, which a script
loads when a fold is first opened, for most readers open few.
"""

import html
import json
from collections.abc import Callable, Sequence

from papercode.site.code_names import Name
from papercode.site.symbols import Symbol


def brought(names: Sequence[Sequence[Name]], claims: Sequence[bool]) -> list[list[Symbol]]:
    """The symbols to be shown below each block: each once, below a claim if any claim has it.

    Args:
        names: the names of the project in each block.
        claims: whether each block is a claim; the code of a figure is folded already.
    """
    in_claims = {n.target for block, claim in zip(names, claims, strict=True) if claim for n in block}
    shown: set[Symbol] = set()
    result = []
    for block, claim in zip(names, claims, strict=True):
        here = dict.fromkeys(n.target for n in block if isinstance(n.target, Symbol))
        fresh = [s for s in here if s not in shown and (claim or s not in in_claims)]
        shown.update(fresh)
        result.append(fresh)
    return result


def fold(symbols: Sequence[Symbol], file: Callable[[str], str], address: Callable[[Symbol | str], str | None]) -> str:
    """The HTML of the fold for `symbols`; empty if there are none.

    Args:
        symbols: what it unfolds to.
        file: the file of a module, as readers are told.
        address: where a symbol or a module is told of.
    """
    if not symbols:
        return ""
    listed = " · ".join(f"<code>{html.escape(symbol.name)}</code>" for symbol in symbols)
    verb = "imports bring" if len(symbols) > 1 else "import brings"
    rows = []
    for symbol in symbols:
        lines = f"lines {symbol.line}–{symbol.end}" if symbol.end > symbol.line else f"line {symbol.line}"
        href = html.escape(address(symbol) or address(symbol.module) or "")
        name = f'<a href="{href}"><code>{html.escape(symbol.name)}</code></a>'
        rows.append(
            f'<div class="brings-symbol" data-module="{symbol.module}" data-name="{symbol.name}">'
            f"<p>{name} <span>{html.escape(file(symbol.module))}, {lines}</span></p></div>"
        )
    return (
        f'\n<details class="source brings" data-search-exclude=""><summary>What the {verb}: {listed}</summary>\n'
        + "\n".join(rows)
        + "\n</details>"
    )


def source_script(module: str, code: str, symbols: Sequence[Symbol]) -> str:
    """The script that hands over the highlighted source of `symbols`, all of one module.

    Args:
        module: its dotted name.
        code: its whole source as Pygments made it, in which no `span` crosses the end of a line.
        symbols: those that pages unfold.
    """
    lines = code.split("\n")
    sources = {s.name: "\n".join(lines[s.line - 1 : s.end]) for s in symbols}
    # `</` must not stand in a script that somebody may inline
    text = json.dumps(sources, ensure_ascii=False).replace("</", "<\\/")
    return f"papercodeSource({json.dumps(module)}, {text});\n"
