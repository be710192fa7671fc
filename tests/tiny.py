"""A tiny project that has all that a real one has, for trying the site engine on."""

import shutil
from pathlib import Path
from textwrap import dedent, indent

from papercode.site.notes import HEADINGS
from papercode.site.project import Project

ROOT = Path(__file__).parents[1]

BIB = """\
@article{first2015scaled,
  title = {A First Paper on Scaling},
  author = {First, Ada},
  journal = {Journal of Tests},
  year = {2015},
}

@article{second2019adapter,
  title = {A Second Paper on Adapters},
  author = {Second, Bob and Third, Cleo},
  journal = {Journal of Tests},
  year = {2019},
}

@article{third2013plain,
  title = {A Plain Paper},
  author = {Plain, Dora},
  journal = {Journal of Tests},
  year = {2013},
}
"""

MODULES = {
    "zoo/__init__.py": '"""A package of models."""\n',
    "zoo/attention/__init__.py": '"""Attention."""\n',
    "zoo/attention/scaled.py": '''\
"""Scaling, as first2015scaled introduced it."""

FACTOR = 2


def scaled(x: int) -> int:
    """Scales `x` as first2015scaled does.

    Args:
        x: any number.

    Returns:
        The scaled number.
    """
    return FACTOR * x
''',
    "zoo/adaptation/__init__.py": '"""Adaptation."""\n',
    "zoo/adaptation/adapter.py": '''\
"""Adapters, from second2019adapter: `scaled` is first2015scaled."""

from zoo.attention.scaled import scaled


def adapted(x: int) -> int:
    """Adapts `x`; see [`scaled`][zoo.attention.scaled.scaled]."""
    return scaled(x) + 1
''',
    "zoo/words/__init__.py": '"""Words."""\n',
    "zoo/words/plain.py": '"""Plain words."""\n\n\ndef plain() -> str:\n    """A word."""\n    return "plain"\n',
}

FIGURE = """\
```python exec="on" html="on" title="Figure 1. A square." alt="One black square."
print('<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><rect width="9" height="9"/></svg>')
```
"""


def block(text, by=0):
    """A literal without the indentation it has in the test; then indented by `by` spaces."""
    return indent(dedent(text).strip("\n") + "\n", " " * by)


def note_text(key, module, title, builds_on=(), extra="", **sections):
    """A note with every heading; what stands under one is given by its first word: Implementation, Problem, First …"""
    lineage = f"builds_on: [{', '.join(builds_on)}]\ncontribution: Brings {title.lower()}."
    parts = [f"---\nkey: {key}\nmodule: {module}\n{lineage}\n{extra}---\n\n# {title}\n"]
    for heading in HEADINGS:
        word = heading.split()[1]
        default = "" if heading.startswith("## ") and word != "First" else f"About {word.lower()} of {title}.\n"
        parts.append(f"{heading}\n\n{dedent(sections.pop(word, default))}")
    assert not sections, f"no heading begins with {', '.join(sections)}"
    return "\n".join(parts)


SCALED = note_text(
    "first2015scaled",
    "zoo.attention.scaled",
    "Scaled",
    Implementation="""\
    [`scaled`][zoo.attention.scaled.scaled] doubles:

    ```pycon exec="on"
    >>> from zoo.attention.scaled import scaled
    >>> scaled(2)
    4
    ```
    """,
    In=FIGURE,
    Method="It is $y = 2x$, that is\n\n$$\ny = x + x .\n$$\n",
)

ADAPTER = note_text(
    "second2019adapter",
    "zoo.adaptation.adapter",
    "Adapter",
    builds_on=["first2015scaled"],
    Problem="It extends @first2015scaled, see [its note](../attention/scaled.md).\n",
    Questions="""\
    ??? question "Does `adapted` add one?"

        It does:

        ```pycon exec="on"
        >>> from zoo.adaptation.adapter import adapted
        >>> adapted(2)
        5
        ```
    """,
)

PLAIN = note_text("third2013plain", "zoo.words.plain", "Plain", Implementation="`plain` is a word.\n")

INDEX = """\
---
title: Tiny
---

# A tiny project

```pycon exec="on"
>>> 1 + 1
2
```
"""

FILES = {
    "references.bib": BIB,
    "papers/attention/scaled.md": SCALED,
    "papers/adaptation/adapter.md": ADAPTER,
    "papers/words/plain.md": PLAIN,
    "docs/index.md": INDEX,
    **{f"src/{name}": text for name, text in MODULES.items()},
}


def write_project(root: Path, katex: Path | None = None) -> Path:
    """Writes the tiny project below `root`; `katex` is the folder with KaTeX's files, without which it has no site."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    real = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in ("How to read: reading.md", "Parity: parity.md", "Benchmarks: benchmarks.md"):  # that it lacks
        line = f"  - {page}\n"
        assert line in real
        real = real.replace(line, "")
    (root / "mkdocs.yml").write_text(real, "utf-8")
    if katex:
        cache = Project(root).cache
        cache.mkdir(parents=True)
        for sums in katex.parent.glob("*/SHA256.json"):  # KaTeX and the fonts beside it
            shutil.copytree(sums.parent, cache / sums.parent.name)
    return root


def add_listed(root, listed, entries=""):
    """Writes papers/listed.yaml, and adds the entries of those papers to references.bib."""
    (root / "papers/listed.yaml").write_text(listed, "utf-8")
    with (root / "references.bib").open("a", encoding="utf-8") as file:
        file.write(entries)
    return root


def line_of(path, text):
    """The line of `path` that is, or first holds, `text`."""
    lines = path.read_text("utf-8").split("\n")
    exact = (number for number, line in enumerate(lines, 1) if line == text)
    return next(exact, None) or next(number for number, line in enumerate(lines, 1) if text in line)


def edit(path, old, new):
    """Replaces `old`, which must be there, in a file."""
    text = path.read_text("utf-8")
    assert old in text, f"{old!r} does not stand in {path}"
    path.write_text(text.replace(old, new), "utf-8")
