"""Which modules the tests hold against an independent implementation, and which they run on a GPU."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from papercode.site.sources import Sources


def proofs(tests: Path, sources: Sources) -> dict[str, set[str]]:
    """The modules with a row of tests/parity.csv as `parity`, those that a test marked `gpu` imports as `gpu`."""
    table = tests / "parity.csv"
    rows = list(csv.DictReader(table.read_text("utf-8").splitlines())) if table.is_file() else []
    codes = {path: path.read_text("utf-8") for path in sorted(tests.glob("*/test_*.py"))}
    on_gpu = {path for path, code in codes.items() if "mark.gpu" in code}
    wanted = on_gpu | {tests.parent / row["test"] for row in rows} & codes.keys()
    named = {path: set(sources.named(codes[path])) for path in wanted}
    return {
        "parity": set(_held(rows, tests.parent, sources, named)),
        "gpu": {module for path in on_gpu for module in named[path]},
    }


def _held(rows: list[dict], root: Path, sources: Sources, named: dict[Path, set[str]]) -> Iterator[str]:
    """A test imports more than what it is about: a row counts for the module it is named for, or defines the model."""
    for row in rows:
        path = root / row["test"]
        model = re.compile(rf"^(?:class|def) {re.escape(row['model'])}\b", re.MULTILINE)
        for module in named.get(path, ()):
            name = module.rpartition(".")[2]
            if re.match(rf"test_{name}(_|$)", path.stem) or model.search(sources.paths[module].read_text("utf-8")):
                yield module
