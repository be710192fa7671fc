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
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from generate_site import generate


def environment(project: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(project / "src"), "NO_MKDOCS_2_WARNING": "1"}


def build(project: Path) -> tuple[float, float]:
    """Wall seconds and peak MB of `mkdocs build`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mkdocs", "build", "-d", str(project / "site")],
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

    def memory(self) -> float:
        """Resident MB."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def serve(project: Path, papers: Path, rebuilds: int) -> dict[str, list[float]]:
    path = next(papers.rglob("p1.md"))
    text, mark = path.read_text(), "### Verdict\n\n"

    def save(number: int, changed: str) -> float:
        path.write_text(changed.replace(mark, f"{mark}Edition{number}x. ", 1))
        seconds = server.wait(f"/papers/{path.parent.name}/{path.stem}/", f"Edition{number}x", 120)
        time.sleep(0.7)
        return seconds

    server = Server(project)
    try:
        prose, snippet, memory = [], [], []
        for number in range(rebuilds):
            prose.append(save(number, text))
            memory.append(server.memory())
        for number in range(rebuilds, rebuilds + 5):  # p1.md prints 1 + 1
            changed = text.replace("print(1 + 1)\n2\n", f"print(1 + {number})\n{1 + number}\n")
            snippet.append(save(number, changed))
        half = len(memory) // 2
        growth = (memory[-1] - memory[half - 1]) / max(1, len(memory) - half)
        return {
            "save prose, s": prose,
            "save snippet, s": snippet,
            "memory growth per rebuild, MB": [growth],
            "memory after rebuilds, MB": [memory[-1]],
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
            for what, values in serve(project, papers, arguments.rebuilds).items():
                for value in values:
                    record(provider, what, value)
    rows = []
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for what in measured["papercode"]:
        for provider in measured:
            values = sorted(measured[provider][what])
            p20, p50, p80 = (values[round(q * (len(values) - 1))] for q in (0.2, 0.5, 0.8))
            base = statistics.median(measured["stock"][what])
            ratio = statistics.median(values) / base if base else float("nan")
            rows.append([
                "site", what, provider, f"{arguments.notes} notes", f"{p20:.2f}", f"{p50:.2f}", f"{p80:.2f}",
                f"{ratio:.3f}", platform.machine(), f"{os.cpu_count()} cores", platform.python_version(), commit,
                datetime.date.today().isoformat(),
            ])  # fmt: skip
    for row in rows:
        print(*row, sep=", ")
    if not arguments.dry:
        path = Path("benchmarks/results/site.csv")
        path.parent.mkdir(exist_ok=True)
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                names = "benchmark what provider shape p20 p50 p80 ratio machine cores python commit date"
                writer.writerow(names.split())
            writer.writerows(rows)


if __name__ == "__main__":
    main()
