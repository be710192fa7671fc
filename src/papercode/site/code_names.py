"""Which names in the code of a page come from the project's modules, found without running the code.

Names are followed through the session of a page as Python would bind them: an import binds; an assignment, a `def` or a
loop takes the name away. What is local to a function, a class or a comprehension is never taken for an import.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass

from papercode.site.fences import Fence
from papercode.site.runner import examples
from papercode.site.sources import parsed
from papercode.site.symbols import Symbol, Symbols

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Name:
    """A name of the project in a block of code.

    Attributes:
        line: its line in the block, from 0.
        column: its first character in that line, prompts counted.
        text: what stands there.
        target: what it means: a symbol, or the dotted name of a module.
        imported: whether it stands in an import statement.
    """

    line: int
    column: int
    text: str
    target: Symbol | str
    imported: bool = False

    def saved(self) -> list:
        """The name as JSON can write it."""
        target = list(astuple(self.target)) if isinstance(self.target, Symbol) else self.target
        return [self.line, self.column, self.text, target, self.imported]

    @classmethod
    def read(cls, saved: list) -> "Name":
        """The name that was saved."""
        line, column, text, target, imported = saved
        return cls(line, column, text, target if isinstance(target, str) else Symbol(*target), imported)


def names_of(fences: Iterable[Fence], symbols: Symbols) -> list[list[Name]]:
    """The names of the project in each of `fences`, which are run from top to bottom in one namespace."""
    bound: dict[str, Symbol | str] = {}
    found = []
    for fence in fences:
        names: list[Name] = []
        for example in examples(fence):
            prompt = example.indent + 4 if fence.language == "pycon" else 0
            for name in _names(example.source, bound, symbols):
                place = name.line + example.lineno, name.column + prompt
                names.append(Name(*place, name.text, name.target, name.imported))
        found.append(names)
    return found


def names_of_module(code: str, symbols: Symbols) -> list[Name]:
    """The names in a module's source that it imports from others of the project."""
    return list(_names(code, {}, symbols))


def _names(code: str, bound: dict[str, Symbol | str], symbols: Symbols) -> Iterator[Name]:
    """The names of the project in one piece of code; `bound` is what they mean before it, and then after it."""
    tree = parsed(code)
    if not tree:  # running it reports that
        return
    lines = code.split("\n")

    def at(line: int, offset: int, text: str, target: Symbol | str, imported: bool = False) -> Name:
        column = len(lines[line - 1].encode()[:offset].decode())  # ast counts bytes
        return Name(line - 1, column, text, target, imported)

    for statement in tree.body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for line, offset, text, target in _in_import(node, lines, symbols):
                    yield at(line, offset, text, target, imported=True)
        taken = _stored(statement)
        if isinstance(statement, ast.For | ast.While | ast.With | ast.If | ast.Try | ast.FunctionDef | ast.ClassDef):
            for name in taken:
                bound.pop(name, None)
        for line, offset, text, target in _uses(statement, frozenset(), bound, symbols):
            yield at(line, offset, text, target)
        for name in taken:
            bound.pop(name, None)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                bound.pop(alias.asname or alias.name, None)
            bound.update(_binds(statement, symbols))


_Found = tuple[int, int, str, Symbol | str]


def _in_import(node: ast.Import | ast.ImportFrom, lines: list[str], symbols: Symbols) -> Iterator[_Found]:
    """What an import statement names: the module, and each thing it takes from there."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if module := symbols.module(alias.name):
                yield alias.lineno, alias.col_offset, alias.name, module
    elif node.module and not node.level:
        if module := symbols.module(node.module):
            column = lines[node.lineno - 1].find(node.module, node.col_offset + len("from "))
            yield node.lineno, column, node.module, module
        for alias in node.names:
            if target := _target(node.module, alias.name, symbols):
                yield alias.lineno, alias.col_offset, alias.name, target


def _binds(node: ast.Import | ast.ImportFrom, symbols: Symbols) -> Iterator[tuple[str, Symbol | str]]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            target = _target(node.module or "", alias.name, symbols)
        else:  # `import a.b` binds a, which is a package and has no page
            target = symbols.module(alias.name) if alias.asname else None
        if target:
            yield alias.asname or alias.name, target


def _target(module: str, name: str, symbols: Symbols) -> Symbol | str | None:
    return symbols.find(module, name) or symbols.module(f"{module}.{name}")


def _uses(node: ast.AST, hidden: frozenset[str], bound: dict[str, Symbol | str], symbols: Symbols) -> Iterator[_Found]:
    if isinstance(node, (*_SCOPES, *_COMPREHENSIONS)):
        hidden |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        hidden |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
        hidden |= {n.name for n in ast.walk(node) if isinstance(n, _SCOPES[:3]) and n is not node}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in hidden and node.id in bound:
        yield node.lineno, node.col_offset, node.id, bound[node.id]
    for child in ast.iter_child_nodes(node):
        yield from _uses(child, hidden, bound, symbols)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in hidden:
        module = bound.get(node.value.id)
        if isinstance(module, str) and (symbol := symbols.find(module, node.attr)):
            line, end = node.end_lineno or 0, node.end_col_offset or 0  # which every parsed node has
            yield line, end - len(node.attr.encode()), node.attr, symbol


def _stored(statement: ast.AST) -> set[str]:
    """The names that a statement binds in its own scope, imports left out."""
    names = set()
    nodes = [statement]
    while nodes:
        node = nodes.pop()
        if isinstance(node, _SCOPES[:3]):
            names.add(node.name)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        if not isinstance(node, (*_SCOPES, *_COMPREHENSIONS)):
            nodes.extend(ast.iter_child_nodes(node))
    return names
