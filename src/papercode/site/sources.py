"""Which modules and files of the project a piece of code reaches, and their hashes, without importing anything."""

import ast
import contextlib
import hashlib
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path


class Sources:
    """The modules below a source folder, read once.

    `reached` follows import statements, those inside functions included. An import made at run time from a
    string is not seen: papercode has none.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._imports: dict[str, frozenset[str]] = {}
        self._hashes: dict[str, str] = {}

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Every module's file, by dotted name."""
        found = {}
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        return found

    def named(self, code: str, module: str = "") -> Iterator[str]:
        """The project's modules that the import statements of `code` name; importing a.b.c also runs a and a.b."""
        tree = parsed(code)
        if tree is None:  # running the code will report it
            return
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level and not module:  # running it will fail: a page is in no package
                    continue
                if node.level:
                    # a package's own __init__ counts as one level already
                    package = self.paths[module].name == "__init__.py"
                    parts = module.split(".")
                    stem = parts[: len(parts) - node.level + package]
                    base = ".".join([*stem, base] if base else stem)
                names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                for end in range(1, len(parts) + 1):
                    if (prefix := ".".join(parts[:end])) in self.paths:
                        yield prefix

    def imports(self, module: str) -> frozenset[str]:
        """The project's modules that `module` imports directly."""
        if module not in self._imports:
            self._imports[module] = frozenset(self.named(self.paths[module].read_text("utf-8"), module)) - {module}
        return self._imports[module]

    def reached(self, *code: str) -> set[str]:
        """The project's modules that running `code` (one or more programs) imports, directly or through others."""
        found: set[str] = set()
        queue = [name for program in code for name in self.named(program)]
        while queue:
            module = queue.pop()
            if module not in found:
                found.add(module)
                queue.extend(self.imports(module))
        return found

    def hash(self, module: str) -> str:
        """A hash of the module's source."""
        if module not in self._hashes:
            self._hashes[module] = hashlib.sha256(self.paths[module].read_bytes()).hexdigest()
        return self._hashes[module]

    def data(self, *code: str) -> dict[str, Path]:
        """The files that string literals of `code` name by their path from the project's root, results to plot say."""
        trees = [tree for program in code if (tree := parsed(program))]
        literals = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        names = sorted(text for text in literals if isinstance(text, str) and "/" in text and text.isprintable())
        return {name: path for name in names if len(name) < 200 and (path := self.folder.parent / name).is_file()}

    def fingerprint(self, *code: str) -> dict[str, str]:
        """The hash of every module that `code` reaches, and of every file that it names."""
        files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.data(*code).items()}
        return {module: self.hash(module) for module in sorted(self.reached(*code))} | files


def parsed(code: str) -> ast.Module | None:
    """The syntax tree of `code`; None if it is not Python."""
    for quietly in (False, True):  # once more, for -W error makes an error of a bad escape in a string
        try:
            with warnings.catch_warnings() if quietly else contextlib.nullcontext():
                if quietly:
                    warnings.simplefilter("ignore")
                return ast.parse(code)
        except (SyntaxError, ValueError):
            continue
    return None
