"""What a function's result depends on of this package's code, as a hash: a param with it reruns what an edit affects.

From a function on, every name in its code is followed: to functions, classes and constants of its module and, through
imports wherever they stand, of others. They are hashed as syntax trees, so that neither blanks nor comments count,
without docstrings and without what an exception says. Of a module imported on the way, statements that do more than
define count too. What a computed name imports isn't seen; only `dispatch` does that. Standard library only.
"""

import ast
import copy
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .errors import InputError

PLUMBING = ("job", "errors", "progress", "columns")
"""Modules that say how the work goes on, or what it is called, and make no number that a file holds."""

_ALL, _ON_IMPORT = "*", ""
"""In place of a name: all of a module, and what it does when imported."""

_FIELDS = {
    kind: [name for name in kind._fields if name not in ("ctx", "kind", "type_comment")]
    for kind in vars(ast).values()
    if isinstance(kind, type) and issubclass(kind, ast.AST)
}
"""Fields of each kind of node that say what the code does. Empty ones don't count: Python's versions differ in them."""

_Place = tuple[str, str]
"""A module below the package (the package itself is the empty text) and a name in it."""


@dataclass(eq=False)
class _Module:
    name: str
    package: str
    body: list[ast.stmt]
    effects: list[ast.stmt]  # those that do more than define
    bound: dict[str, list[ast.stmt]]  # by the names they define
    imports: dict[str, _Place]  # what is imported of the package, by local name


class Package:
    """The code of a package in the folder `root`, read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path, self.module = cache(self._path), cache(self._module)
        self.follow, self.read = cache(self._follow), cache(self._read)

    def digest(self, *names: str) -> str:
        """Return a hash of what functions such as `evidence.patterns.pattern_tests`, or whole modules, depend on.

        Raises InputError for a name that isn't there.
        """
        places = []
        for name in names:
            module, _, attribute = (name, "", _ALL) if self.path(name) else name.rpartition(".")
            if not self.path(module) or attribute not in (_ALL, *self.module(module).bound):
                raise InputError(f"{self.root.name} has no {name}; name a function of it, as evidence.verdict.verdict.")
            places.append((module, attribute))
        return self._digest(places)

    def digest_of_script(self, path: str | Path) -> str:
        """Return a hash of what a script depends on of the package; its own text is for Snakemake to see."""
        script = self._parse("", "", Path(path))
        return self._digest([place for statement in script.body for place in self.read(script, statement)[1]])

    def _digest(self, ahead: list[_Place]) -> str:
        texts: dict[_Place, str] = {}
        while ahead:
            place = ahead.pop()
            if place not in texts and place[0] not in PLUMBING:
                texts[place], needs = self.follow(*place)
                ahead += needs
        code = sorted(item for item in texts.items() if item[1])
        return hashlib.sha256(repr(code).encode()).hexdigest()[:16]

    def _follow(self, name: str, attribute: str) -> tuple[str, set[_Place]]:
        """Return the code of a name in a module as text, and all that it needs."""
        module = self.module(name)
        statements = {_ALL: module.body, _ON_IMPORT: module.effects}.get(attribute) or module.bound.get(attribute, [])
        read = [self.read(module, statement) for statement in statements]
        needs = {(name, _ON_IMPORT), (name.rpartition(".")[0], _ON_IMPORT)}.union(*[places for _, places in read])
        if attribute == _ON_IMPORT:
            needs |= {(imported, _ON_IMPORT) for imported, _ in module.imports.values()}
        if attribute in module.imports:  # it is handed on
            needs.add(module.imports[attribute])
        elif attribute and self.path(f"{name}.{attribute}".strip(".")):
            needs.add((f"{name}.{attribute}".strip("."), _ALL))
        return "\n".join(text for text, _ in read if text), needs

    def _read(self, module: _Module, statement: ast.stmt) -> tuple[str, set[_Place]]:
        """Return a statement as text, and what it uses of the package or imports there."""
        parts: list[str] = []
        uses: set[tuple[str, str]] = set()  # x as (x, _ALL), x.y as (x, y)
        imports: dict[str, _Place] = {}

        def visit(node: Any) -> None:
            kind = type(node)
            if kind is list:
                parts.append("[")
                for item in node:
                    visit(item)
                parts.append("]")
            elif kind not in _FIELDS:
                parts.append(repr(node))
            elif kind is ast.Raise:
                parts.append("Raise")
            elif kind is ast.Attribute and type(node.value) is ast.Name:
                uses.add((node.value.id, node.attr))
                parts.append(f"{node.value.id}.{node.attr}")
            elif kind is not ast.Expr or type(node.value) is not ast.Constant:  # that is a docstring
                if kind is ast.Name:
                    uses.add((node.id, _ALL))
                elif kind is ast.Import or kind is ast.ImportFrom:
                    imports.update(self._imports(module.package, node))
                parts.append(kind.__name__)
                for name in _FIELDS[kind]:
                    value = getattr(node, name, None)
                    if name in ("annotation", "returns") and type(value) is ast.Constant and value.value:
                        value = ast.parse(str(value.value)).body  # it stands in quotes
                    if value is not None and value != []:
                        parts.append(name)
                        visit(value)

        visit(statement)
        needs = {(name, _ON_IMPORT) for name, _ in imports.values()}
        for base, attribute in uses:
            if place := imports.get(base) or module.imports.get(base):
                needs.add((place[0], attribute) if place[1] == _ALL else place)
            elif base in module.bound:
                needs.add((module.name, base))
        return " ".join(parts), needs

    def _imports(self, package: str, node: ast.Import | ast.ImportFrom) -> dict[str, _Place]:
        """Return what an import statement imports of the package, by local name; a module as all of it."""
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.startswith(f"{self.root.name}.")]
            return {alias.asname or self.root.name: (alias.name.partition(".")[2], _ALL) for alias in ours}
        parts = (node.module or "").split(".")
        if node.level:
            above = package.split(".")
            parts = above[: len(above) - node.level + 1] + parts
        elif parts.pop(0) != self.root.name:
            return {}
        module = ".".join(filter(None, parts))
        found = {}
        for alias in node.names:
            submodule = f"{module}.{alias.name}".strip(".")
            found[alias.asname or alias.name] = (submodule, _ALL) if self.path(submodule) else (module, alias.name)
        return found

    def _path(self, module: str) -> Path | None:
        """Return a module's file, if there is one."""
        path = self.root.joinpath(*module.split("."))
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)

    def _module(self, name: str) -> _Module:
        path = self.path(name) or self.root / "__init__.py"
        return self._parse(name, name if path.stem == "__init__" else name.rpartition(".")[0], path)

    def _parse(self, name: str, package: str, path: Path) -> _Module:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        effects: list[ast.stmt] = []
        bound: dict[str, list[ast.stmt]] = defaultdict(list)
        imports: dict[str, _Place] = {}
        for statement in body:
            names = []
            for node in [statement] if isinstance(statement, _DEFINITIONS) else ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    imports |= self._imports(package, node)
                    for alias in node.names:  # each by itself, so that one more is no change of the others
                        alone = copy.copy(node)
                        alone.names = [alias]
                        bound[alias.asname or alias.name.partition(".")[0]].append(alone)
                elif isinstance(node, _DEFINITIONS):
                    names.append(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.append(node.id)
            for local in names:
                bound[local].append(statement)
            is_definition = isinstance(statement, (*_DEFINITIONS, ast.Assign, ast.AnnAssign)) and names
            if not is_definition and not isinstance(statement, ast.Import | ast.ImportFrom):
                effects.append(statement)
        return _Module(name, package, body, effects, bound, imports)


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

_OURS = Package(Path(__file__).parent)
digest, digest_of_script = _OURS.digest, _OURS.digest_of_script
