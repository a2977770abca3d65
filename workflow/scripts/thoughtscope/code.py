"""What a function's result depends on of this package's code, as a hash: a param with it reruns what an edit affects.

From a function on, every name is followed that its code says: to functions, classes and constants of its module and,
through imports wherever they stand, of others. They are hashed as syntax trees, so that neither blanks nor comments
count, without docstrings and without what an exception says. Of a module that is imported on the way, statements that
define nothing count too. What a computed name imports isn't seen; only `dispatch` does that. Standard library only.
"""

import ast
import hashlib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError

PLUMBING = ("job", "errors", "progress")
"""Modules that say how the work goes on, and make nothing that a file holds."""

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


class _Module(NamedTuple):
    name: str
    package: str
    body: list[ast.stmt]
    bound: dict[str, list[ast.stmt]]  # statements by the names they bind
    imports: dict[str, _Place]  # what is imported of the package, by local name


class Package:
    """The code of a package in the folder `root`, read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module, self.read = cache(self._module), cache(self._read)

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
        return self._digest([place for statement in script.body for place in self._needs(script, statement)])

    def _digest(self, ahead: list[_Place]) -> str:
        texts: dict[_Place, str] = {}
        while ahead:
            place = ahead.pop()
            if place not in texts and place[0] not in PLUMBING:
                texts[place], needs = self.read(*place)
                ahead += needs
        return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]

    def _read(self, name: str, attribute: str) -> tuple[str, set[_Place]]:
        """Return the code of a name in a module as text, and all that it needs."""
        module = self.module(name)
        statements = module.bound.get(attribute, [])
        if attribute in (_ALL, _ON_IMPORT):
            defining = {id(each) for bound in module.bound.values() for each in bound if attribute == _ON_IMPORT}
            statements = [each for each in module.body if id(each) not in defining]
        needs = {(name, _ON_IMPORT), (name.rpartition(".")[0], _ON_IMPORT)}
        needs |= {place for statement in statements for place in self._needs(module, statement)}
        if attribute in module.imports:  # it is handed on
            needs.add(module.imports[attribute])
        elif attribute and self.path(f"{name}.{attribute}".strip(".")):
            needs.add((f"{name}.{attribute}".strip("."), _ALL))
        return "\n".join(map(_text, statements)), needs

    def _needs(self, module: _Module, statement: ast.stmt) -> set[_Place]:
        """Return what a statement uses of the package, and which modules of it are imported there."""
        nodes = list(ast.walk(statement))
        imports = {local: place for node in nodes for local, place in self._imports(module.package, node).items()}
        needs = {(name, _ON_IMPORT) for name, _ in imports.values()}
        imports = module.imports | imports
        of_modules = {id(node.value): node.attr for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Name):
                name, attribute = imports.get(
                    node.id, (module.name, node.id if node.id in module.bound else _ON_IMPORT)
                )
                needs.add((name, of_modules.get(id(node), _ALL) if attribute == _ALL else attribute))
        return needs

    def _imports(self, package: str, node: ast.AST) -> dict[str, _Place]:
        """Return what an import statement imports of the package, by local name; a module as all of it."""
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.startswith(f"{self.root.name}.")]
            return {alias.asname or self.root.name: (alias.name.partition(".")[2], _ALL) for alias in ours}
        if not isinstance(node, ast.ImportFrom):
            return {}
        parts = (node.module or "").split(".")
        if node.level:
            above = package.split(".")
            parts = above[: len(above) - node.level + 1] + parts
        elif parts.pop(0) != self.root.name:
            return {}
        module = ".".join(filter(None, parts))
        whole = {alias.name: f"{module}.{alias.name}".strip(".") for alias in node.names}
        return {
            alias.asname or alias.name: (whole[alias.name], _ALL)
            if self.path(whole[alias.name])
            else (module, alias.name)
            for alias in node.names
        }

    def path(self, module: str) -> Path | None:
        """Return a module's file, if there is one."""
        path = self.root.joinpath(*module.split("."))
        return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)

    def _module(self, name: str) -> _Module:
        path = self.path(name) or self.root / "__init__.py"
        return self._parse(name, name if path.stem == "__init__" else name.rpartition(".")[0], path)

    def _parse(self, name: str, package: str, path: Path) -> _Module:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        _tidy(tree)
        bound: dict[str, list[ast.stmt]] = defaultdict(list)
        imports: dict[str, _Place] = {}
        for statement in tree.body:
            for node in [statement] if isinstance(statement, _DEFINITION) else ast.walk(statement):
                imports |= self._imports(package, node)
                if isinstance(node, _DEFINITION):
                    bound[node.name].append(statement)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    bound[node.id].append(statement)
        return _Module(name, package, tree.body, bound, imports)


_DEFINITION = (ast.FunctionDef, ast.ClassDef)


def _tidy(tree: ast.AST) -> None:
    """Remove docstrings and what exceptions say, and write annotations in quotes out."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [
                each for each in body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
        if isinstance(node, ast.Raise):
            node.exc = node.cause = None
        for name in ("annotation", "returns"):
            quoted = getattr(node, name, None)
            if isinstance(quoted, ast.Constant) and isinstance(quoted.value, str):
                setattr(node, name, ast.parse(quoted.value, mode="eval").body)


def _text(node: Any) -> str:
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name in _FIELDS[type(node)] if (value := getattr(node, name, None)) not in (None, [])]
    return f"{type(node).__name__}({','.join([f'{name}={_text(value)}' for name, value in fields])})"


_OURS = Package(Path(__file__).parent)
digest, digest_of_script = _OURS.digest, _OURS.digest_of_script
