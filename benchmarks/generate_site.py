"""Generates the same notes and modules twice: as a papercode project and as a stock MkDocs project."""

import random
import shutil
from pathlib import Path
from textwrap import dedent

from papercode.site.notes import FAMILIES, HEADINGS

TEXT = """
the model reads a sequence of tokens and returns one vector for each of them because every layer mixes what positions
know with weights that depend on their content while the residual path keeps what was there before training moves
parameters so that likely continuations gain probability and unlikely ones lose it in practice a larger batch gives a
steadier gradient but fewer steps for the same budget
"""

FORMULAS = [
    r"\operatorname{softmax}\left(\frac{QK^\top}{\sqrt{d_k}}\right)V",
    r"\begin{aligned} h_t &= \tanh(W x_t + U h_{t-1}) \\ y_t &= V h_t \end{aligned}",
    r"\mathcal{L} = -\sum_{t=1}^{n} \log p(x_t \mid x_{<t})",
]

# as markdown-exec wants them: it shows a claim only with `source`, and a page's session needs a name
SNIPPETS = [
    """
    ```pycon exec="on" session="SESSION" source="above"
    >>> import torch
    >>> from MODULE import Layer0
    >>> layer = Layer0(8, 8)
    >>> print(sum(p.numel() for p in layer.parameters()))
    72
    ```
    """,
    """
    ```pycon exec="on" session="SESSION" source="above"
    >>> print(layer(torch.zeros(2, 8)).shape)
    torch.Size([2, 8])
    ```
    """,
    """
    ```pycon exec="on" session="SESSION" source="above"
    >>> print(NUMBER + 1)
    NEXT
    ```
    """,
    """
    ```python exec="on" session="SESSION"
    optimizer = torch.optim.AdamW(layer.parameters())
    for step in range(20):
        loss = layer(torch.ones(4, 8)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("trained")
    ```
    """,
    """
    ```python exec="on" session="SESSION" html="on" title="A figure." alt="A line."
    import io
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots()
    axes.plot([i * NEXT % 17 for i in range(50)])
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    print(buffer.getvalue()[buffer.getvalue().index("<svg"):])
    ```
    """,
]


def paragraph(rng: random.Random, words: int) -> str:
    """Random words with a formula."""
    text = " ".join(rng.choice(TEXT.split()) for _ in range(words))
    return text.capitalize() + f", with $d_{{{rng.randrange(9)}}} = {rng.randrange(9)}$."


def note(number: int, rng: random.Random, module: str) -> str:
    """1,500 words, five formulas on lines of their own, five snippets, under the headings of a note."""
    values = {"SESSION": f"s{number}", "MODULE": module, "NUMBER": str(number), "NEXT": str(number + 1)}
    parts = [f"---\nkey: author{2000 + number}word\nmodule: {module}\nbuilds_on: []\n---\n\n# Paper {number}"]
    for place, heading in enumerate(HEADINGS):
        parts += [heading, paragraph(rng, 100)]
        if place % 3 == 0:
            parts.append(f"$$\n{FORMULAS[place // 3 % len(FORMULAS)]}\n$$")
        if place % 3 == 1:
            snippet = dedent(SNIPPETS[place // 3 % len(SNIPPETS)]).strip()
            for name, value in values.items():
                snippet = snippet.replace(name, value)
            parts.append(snippet)
    return "\n\n".join(parts) + "\n"


def module(number: int, family: str, previous: list[str]) -> str:
    # two ancestors each, from the first half: a few hubs that many reach, as papers have them
    ancestors = sorted({previous[number // 2 - 1], previous[number // 3 - 1]}) if number > 2 else previous
    imports = "\n".join(f"from {name} import Layer0 as Older{i}" for i, name in enumerate(ancestors))
    classes = "".join(
        dedent(f'''

        class Layer{i}(nn.Module):
            """One affine map of the {family} family.

            Args:
                d_in: width of the input, in features.
                d_out: width of the output, in features.

            Raises:
                ValueError: a width is not positive.
            """

            def __init__(self, d_in: int, d_out: int) -> None:
                super().__init__()
                if d_in < 1 or d_out < 1:
                    raise ValueError(f"d_in={{d_in}} and d_out={{d_out}} must be positive")
                self.map = nn.Linear(d_in, d_out)

            def forward(self, x: Tensor) -> Tensor:
                """Maps x (b n d_in) to (b n d_out).

                Args:
                    x: the input.

                Returns:
                    The mapped input.
                """
                return self.map(x)

            def loss(self, x: Tensor, y: Tensor) -> Tensor:
                """The mean squared distance between the map of x and y, both (b n d).

                Args:
                    x: the input.
                    y: the target.
                """
                return (self(x) - y).square().mean()
        ''')
        for i in range(4)
    )
    return f'"""Module {number}."""\n\nimport torch\nfrom torch import Tensor, nn\n\n{imports}\n{classes}'


def generate(folder: Path, notes: int) -> tuple[Path, Path]:
    """The same notes and modules as a papercode project and as a stock MkDocs project."""
    rng, families = random.Random(0), list(FAMILIES)
    ours, stock = folder / "ours", folder / "stock"
    names: list[str] = []
    for number in range(notes // 2):
        family = families[number * len(families) // max(notes // 2, 1)]
        path = ours / "src" / "zoo" / family / f"m{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(module(number, family, names))
        for package in (path.parent, path.parent.parent):
            (package / "__init__.py").write_text('"""A package."""\n')
        names.append(f"zoo.{family}.m{number}")
    (ours / "docs").mkdir()
    for page in ("index", "about", "reading"):
        (ours / "docs" / f"{page}.md").write_text(f"# {page}\n\n{paragraph(rng, 400)}\n")
    entries = []
    for number in range(notes):
        family = names[number % len(names)].split(".")[1]
        text = note(number, rng, names[number % len(names)])
        entries.append(
            f"@misc{{author{2000 + number}word, title={{Paper {number}}}, author={{Doe, Jane}}, year={{2017}}}}\n"
        )
        for path in (ours / "papers" / family / f"p{number}.md", stock / "docs" / "papers" / family / f"p{number}.md"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (ours / "references.bib").write_text("\n".join(entries))
    shutil.copytree(ours / "src", stock / "src")
    shutil.copytree(ours / "docs", stock / "docs", dirs_exist_ok=True)
    for name in names:
        page = stock / "docs" / "api" / f"{name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"# {name}\n\n::: {name}\n")
    common = """
        site_name: notes
        theme:
          name: material
          font: false
          features: [content.code.copy, navigation.tabs, navigation.prune, search.suggest, search.highlight]
        markdown_extensions: [attr_list, md_in_html, admonition, def_list, footnotes, tables, {toc: {permalink: true}},
          pymdownx.highlight, pymdownx.inlinehilite, pymdownx.details, pymdownx.blocks.caption, pymdownx.superfences,
          {pymdownx.tabbed: {alternate_style: true}}, {pymdownx.arithmatex: {generic: true}}]
        """
    (ours / "mkdocs.yml").write_text(
        dedent(common)
        + dedent("""
        nav: [{Home: index.md}, about.md, reading.md, {Papers: papers/}, {Bibliography: bibliography.md}, {API: api/}]
        plugins: [search, autorefs, papercode,
          {mkdocstrings: {handlers: {python: {paths: [src], options: {show_source: false}}}}}]
        """)
    )
    (stock / "mkdocs.yml").write_text(
        dedent(common)
        + "plugins: [search, autorefs, markdown-exec, {mkdocstrings: {handlers: {python: {paths: [src]}}}}]\n"
    )
    katex = Path(".cache/papercode")
    (ours / katex).mkdir(parents=True, exist_ok=True)
    for found in katex.glob("katex-*"):  # not part of what is timed
        (shutil.copytree if found.is_dir() else shutil.copy)(found, ours / katex / found.name)
    return ours, stock
