"""What the modules of the project define at their top level, and where each name has its home; nothing is imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from papercode.site.sources import Sources, parsed


@dataclass(frozen=True)
class Symbol:
    """A name that a module defines.

    Attributes:
        module: the dotted name of its home.
        name: its name there.
        line: its first line, decorators included, counted from 1.
        end: its last line, with the docstring that follows a constant.
        public: whether the module's API page tells of it: a public name with a docstring.
    """

    module: str
    name: str
    line: int
    end: int
    public: bool

    @property
    def anchor(self) -> str:
        """Where its module's API page tells of it."""
        return f"{self.module}.{self.name}"


class Symbols:
    """Finds the home of names. Modules are read once, when first asked for."""

    def __init__(self, sources: Sources):
        self.sources = sources
        self._modules: dict[str, tuple[dict[str, Symbol], dict[str, tuple[str, str]]]] = {}

    def find(self, module: str, name: str) -> Symbol | None:
        """What `from module import name` brings, followed to the module that defines it; None if that is no symbol."""
        asked = set()
        while module in self.sources.paths and (module, name) not in asked:
            asked.add((module, name))
            defined, imported = self._read(module)
            if name in defined:
                return defined[name]
            module, name = imported.get(name, ("", ""))
        return None

    def module(self, name: str) -> str | None:
        """`name` if it is a module of the project."""
        return name if name in self.sources.paths else None

    def _read(self, module: str) -> tuple[dict[str, Symbol], dict[str, tuple[str, str]]]:
        if module not in self._modules:
            tree = parsed(self.sources.paths[module].read_text("utf-8"))
            body = list(_flat(tree.body)) if tree else []  # whoever imports it reports what is wrong
            defined = {symbol.name: symbol for symbol in _defined(module, body)}
            imported = {
                alias.asname or alias.name: (node.module, alias.name)
                for node in body
                if isinstance(node, ast.ImportFrom) and node.module and not node.level
                for alias in node.names
            }
            self._modules[module] = defined, imported
        return self._modules[module]


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under `if` and `try` included."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            parts = [*node.body, *node.orelse, *(s for h in getattr(node, "handlers", ()) for s in h.body)]
            yield from _flat(parts)


def _defined(module: str, body: list[ast.stmt]) -> Iterator[Symbol]:
    for node, after in pairwise([*body, None]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names, told, end = [node.name], ast.get_docstring(node) is not None, node.end_lineno
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            line, end = node.lineno, after.end_lineno if after and told else node.end_lineno
        else:
            continue
        for name in names:
            yield Symbol(module, name, line, end or line, told and not name.startswith("_"))
