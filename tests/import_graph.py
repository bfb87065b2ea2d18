"""Who imports whom: every import counts, also those inside functions and under TYPE_CHECKING.

``python tests/import_graph.py`` prints how many files and places there are and what runs between them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("operators", "recon")
Graph = dict[str, set[str]]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the packages, by its dotted name; a package is its ``__init__.py``."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }


def imports(path: Path, module: str, known: Iterable[str]) -> set[str]:
    """Modules that a file imports, relative ones resolved; ``from package import module`` is the module."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    known, found = set(known), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            inner = {alias.name: f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in known else base for name in inner.values()}
    return found


@cache
def graph(root: Path = ROOT) -> Graph:
    """The project's own imports: module -> modules."""
    files = modules(root)
    return {name: (imports(path, name, files) & files.keys()) - {name} for name, path in files.items()}


def rings(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, directly or not (Tarjan's strong components of two or more)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in edges[name]:
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in order:
            visit(name)
    return found


def place(module: str) -> str:
    """Where a module stands: a file beside the others of its package, or the folder it is in."""
    package, *rest = module.split(".")
    return ".".join([package, *rest[:1]])


def between_places(edges: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """Pairs of places, one of which imports the other."""
    pairs = {(place(name), place(other)) for name, others in edges.items() for other in others}
    return {(a, b) for a, b in pairs if a != b}


def reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """All modules that importing ``start`` imports in the end, itself among them."""
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges[name]
    return found


if __name__ == "__main__":
    edges = graph()
    places = {place(name) for name in edges}
    print(f"files {len(edges)}, places {len(places)}")
    print(
        f"imports between files {sum(map(len, edges.values()))}, between places {len(between_places(edges))}"
    )
    print("rings of files:", rings(edges) or "none")
    print(
        "rings of places:",
        rings({p: {b for a, b in between_places(edges) if a == p} for p in places}) or "none",
    )
