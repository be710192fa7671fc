"""Times the site engine against mkdocs-material with markdown-exec on the same 120 generated notes.

    python benchmarks/site.py            all: cold, warm, serve; appends rows to benchmarks/results/site.csv
    python benchmarks/site.py --notes 12 --rounds 1 --dry    a quick look

Ratios are ours over theirs, from rounds that alternate between the two, medians of the rounds.
"""

import argparse
import csv
import datetime
import os
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from textwrap import dedent

from papercode.site.notes import FAMILIES, HEADINGS

WORDS = [
    w
    for w in (
        "the model reads a sequence of tokens and returns one vector for each of them because every layer mixes what "
        "positions know with weights that depend on their content while the residual path keeps what was there before "
        "training moves parameters so that likely continuations gain probability and unlikely ones lose it in practice "
        "a larger batch gives a steadier gradient but fewer steps for the same budget"
    ).split()
]
FORMULAS = [
    r"\operatorname{softmax}\left(\frac{QK^\top}{\sqrt{d_k}}\right)V",
    r"\begin{aligned} h_t &= \tanh(W x_t + U h_{t-1}) \\ y_t &= V h_t \end{aligned}",
    r"\mathcal{L} = -\sum_{t=1}^{n} \log p(x_t \mid x_{<t})",
]


def paragraph(rng: random.Random, words: int) -> str:
    text = " ".join(rng.choice(WORDS) for _ in range(words))
    return text.capitalize() + f", with $d_{{{rng.randrange(9)}}} = {rng.randrange(9)}$."


def note(number: int, rng: random.Random, modules: list[str]) -> str:
    module = modules[number % len(modules)]
    parts = [f"---\nkey: author{2000 + number}word\nmodule: {module}\nbuilds_on: []\n---\n\n# Paper {number}"]
    snippets = [
        f'```pycon exec="on" source="above"\n>>> import torch\n>>> from {module} import Layer0\n>>> layer = Layer0(8, 8)\n'
        f'>>> print(sum(p.numel() for p in layer.parameters()))\n72\n```',
        '```pycon exec="on" source="above"\n>>> print(layer(torch.zeros(2, 8)).shape)\ntorch.Size([2, 8])\n```',
        f'```pycon exec="on" source="above"\n>>> print({number} + 1)\n{number + 1}\n```',
        '```python exec="on"\noptimizer = torch.optim.AdamW(layer.parameters())\nfor step in range(20):\n    loss = layer(torch.ones(4, 8)).square().mean()\n'
        '    optimizer.zero_grad()\n    loss.backward()\n    optimizer.step()\nprint("trained")\n```',
        '```python exec="on" html="on"\nimport io\nimport matplotlib\nmatplotlib.use("svg")\nimport matplotlib.pyplot as plt\n'
        f"figure, axes = plt.subplots()\naxes.plot([i * {number + 1} % 17 for i in range(50)])\nbuffer = io.StringIO()\n"
        'figure.savefig(buffer, format="svg")\nplt.close(figure)\nprint(buffer.getvalue()[buffer.getvalue().index("<svg"):])\n```',
    ]
    # one session a page: markdown-exec needs its name
    snippets = [s.replace('exec="on"', f'exec="on" session="s{number}"', 1) for s in snippets]
    for place, heading in enumerate(HEADINGS):
        parts.append(heading)
        parts.append(paragraph(rng, 100))
        if place % 3 == 0:
            parts.append(f"$$\n{FORMULAS[place // 3 % 3]}\n$$")
        if place % 3 == 1:
            parts.append(snippets[place // 3 % len(snippets)])
    return "\n\n".join(parts) + "\n"


def module(number: int, family: str, previous: list[str]) -> str:
    imports = "\n".join(f"from {name} import Layer0 as Older{i}" for i, name in enumerate(previous[-2:]))
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
        text = note(number, rng, names)
        entries.append(f"@misc{{author{2000 + number}word, title={{Paper {number}}}, author={{Doe, Jane}}, year={{2017}}}}\n")
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
        plugins: [search, autorefs, papercode, {mkdocstrings: {handlers: {python: {paths: [src], options: {show_source: false}}}}}]
        """)
    )
    (stock / "mkdocs.yml").write_text(
        dedent(common)
        + "plugins: [search, autorefs, markdown-exec, {mkdocstrings: {handlers: {python: {paths: [src]}}}}]\n"
    )
    katex = Path(".cache/papercode")
    for found in katex.glob("katex-*"):  # not part of what is timed
        shutil.copytree(found, ours / katex / found.name)
    return ours, stock


def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project / "src"), "NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}


def build(project: Path) -> tuple[float, float]:
    """Wall seconds and peak MB of `mkdocs build`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "-d", str(project / "site")],
        cwd=project, env=environment(project), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"building {project} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


class Server:
    """`mkdocs serve`, and how long a save takes to arrive in the browser."""

    def __init__(self, project: Path):
        self.project = project
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "mkdocs", "serve", "--livereload", "-a", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(
            command, cwd=project, env=environment(project), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait("/", "", 300)

    def wait(self, url: str, text: str, limit: float) -> float:
        start = time.perf_counter()
        while time.perf_counter() - start < limit:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{url}", timeout=60) as answer:
                    if text in answer.read().decode():
                        return time.perf_counter() - start
            except OSError:
                pass
            time.sleep(0.02)
        raise SystemExit(f"{self.project}: {text!r} did not arrive within {limit} s")

    def save(self, path: Path, old: str, new: str, arrives: str) -> float:
        """Seconds from saving `path` with `old` replaced by `new` until its page shows `arrives`."""
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return self.wait(f"/papers/{path.parent.name}/{path.stem}/", arrives, 120)

    def memory(self) -> float:
        """Resident MB."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)


def serve(project: Path, papers: Path, rebuilds: int) -> dict[str, float]:
    path = next(iter(sorted(papers.rglob("p1.md"))))
    server = Server(project)
    try:
        prose, snippet, memory = [], [], []
        for i in range(rebuilds):
            old = "# Paper 1" if i == 0 else f"# Paper 1 edition{i - 1}x"
            prose.append(server.save(path, old, f"# Paper 1 edition{i}x", f"edition{i}x"))
            time.sleep(0.5)
            memory.append(server.memory())
        for i in range(3):
            old, new = f"print({i + 1} + 1)\n{i + 2}\n", f"print({i + 2} + 1)\n{i + 3}\n"
            text = path.read_text().replace(old, new, 1)
            path.write_text(text.replace("# Paper 1", f"# Again{i}x Paper 1", 1) if i == 0 else text.replace(f"Again{i - 1}x", f"Again{i}x", 1))
            snippet.append(server.wait(f"/papers/{path.parent.name}/{path.stem}/", f"Again{i}x", 120))
            time.sleep(0.5)
        half = len(memory) // 2
        growth = (memory[-1] - memory[half - 1]) / max(1, len(memory) - half)
        return {
            "save prose, s": statistics.median(prose),
            "save snippet, s": statistics.median(snippet),
            "memory growth per rebuild, MB": growth,
            "memory after rebuilds, MB": memory[-1],
        }
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rebuilds", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="print, do not append rows")
    arguments = parser.parse_args()
    measured: dict[str, dict[str, list[float]]] = {"papercode": {}, "stock": {}}

    def record(provider: str, what: str, value: float) -> None:
        measured[provider].setdefault(what, []).append(value)
        print(f"{provider:10} {what:32} {value:9.2f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        ours, stock = generate(Path(folder), arguments.notes)
        for _ in range(arguments.rounds):
            for provider, project in (("papercode", ours), ("stock", stock)):
                for kept in ("snippets", "pages"):
                    shutil.rmtree(project / ".cache" / "papercode" / kept, ignore_errors=True)
                for what in ("cold", "warm"):
                    seconds, memory = build(project)
                    record(provider, f"{what} build, s", seconds)
                    record(provider, f"{what} build, peak MB", memory)
        for provider, project, papers in (("papercode", ours, ours / "papers"), ("stock", stock, stock / "docs")):
            for what, value in serve(project, papers, arguments.rebuilds).items():
                record(provider, what, value)
    rows = []
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for what in measured["papercode"]:
        for provider in measured:
            values = sorted(measured[provider][what])
            p20, p50, p80 = (values[round(q * (len(values) - 1))] for q in (0.2, 0.5, 0.8))
            base = statistics.median(measured["stock"][what])
            ratio = statistics.median(values) / base if base else float("nan")
            rows.append(["site", what, provider, f"{arguments.notes} notes", f"{p20:.2f}", f"{p50:.2f}", f"{p80:.2f}", f"{ratio:.3f}",
                         platform.processor() or platform.machine(), f"{os.cpu_count()} cores", platform.python_version(), commit,
                         datetime.date.today().isoformat()])  # fmt: skip
    for row in rows:
        print(*row, sep=", ")
    if not arguments.dry:
        path = Path("benchmarks/results/site.csv")
        path.parent.mkdir(exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow("benchmark what provider shape p20 p50 p80 ratio device cores python commit date".split())
            writer.writerows(rows)


if __name__ == "__main__":
    main()
