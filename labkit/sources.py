"""What a script is called and which code it runs: by its path, and by its syntax tree.

A run is resumed, and a figure reproduced, only by the code that made it. That code is the script
and every module of this repository that it imports, directly or not; comments, docstrings and
layout don't count.
"""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from labkit.machine import ROOT


def script_name(script: Path) -> str:
    """Its path below the repository's root, dotted. Usage: `script_name(Path(__file__))`.

    `tp6_real_world/painters/train.py` is `tp6_real_world.painters.train`.
    """
    script = script.resolve()
    return ".".join(script.relative_to(_root_of(script)).with_suffix("").parts)


def code_of(script: Path) -> dict[str, str]:
    """The code that `script` runs, by module. Usage: `code_of(Path(__file__)).keys()`.

    Followed are `import a.b`, `from a import b` (also where `b` is a module), relative imports,
    imports inside functions and under `TYPE_CHECKING`, `lazy("a.b")`, and each package's
    `__init__`. Raises `SyntaxError` for a module that Python couldn't read either.
    """
    script = script.resolve()
    root = _root_of(script)
    found: dict[str, str] = {}
    pending = [script]
    while pending:
        path = pending.pop()
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        if name in found:
            continue
        modules, found[name] = _read(path, name, path.stat().st_mtime_ns)
        pending += [file for module in modules for file in _files_of(module, root)]
    return dict(sorted(found.items()))


def imported_modules(
    tree: ast.Module, parts: list[str] | None = None, path: Path | None = None
) -> Iterator[str]:
    """Every name that `tree` may import as a module. Usage: `set(imported_modules(tree))`.

    `parts` is the dotted name of the module that `tree` is, to resolve its relative imports, and
    `path` its file. Of `from a import b` both `a` and `a.b` are given: only the file system knows
    whether `b` is a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = node.level - (path is not None and path.name == "__init__.py")
                package = (parts or [])[: len(parts or []) - up]
                base = ".".join([*package, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function == "lazy" and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def _root_of(script: Path) -> Path:
    """The repository's root; elsewhere the folder above the lab's, or above the script's own."""
    if script.is_relative_to(ROOT):
        return ROOT
    labs = [folder.parent for folder in script.parents if re.match(r"tp\d", folder.name)]
    return labs[-1] if labs else script.parents[1]


def _files_of(module: str, root: Path) -> Iterator[Path]:
    """The file of `module` below `root`, and the `__init__` of each package on the way."""
    place = root
    for part in module.split("."):
        place = place / part
        for file in (place.with_name(f"{part}.py"), place / "__init__.py"):
            if file.is_file():
                yield file


@lru_cache(maxsize=1000)  # a comparison has many trials of the same code
def _read(path: Path, name: str, changed: int) -> tuple[frozenset[str], str]:
    """What the module imports, and its code; `changed` is the time of its last change."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    parts = name.removesuffix(".__init__").split(".")
    modules = frozenset(imported_modules(tree, parts, path))
    return modules, _without_docstrings(tree)


def _without_docstrings(tree: ast.Module) -> str:
    """The code of `tree` in Python's own layout, without comments and docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                line
                for line in body
                if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
            ]
    return ast.unparse(tree)
