"""Who imports whom, and which files a piece of work walks through.

``python tests/import_graph.py`` prints how many files and places there are and what runs between them: every
import counts, also those inside functions and under TYPE_CHECKING. ``--walk`` also does three small jobs and
follows their calls: a k-space file through ``recon reconstruct``, a problem through `recon.sample`, and a tiny
``recon benchmark``. Each runs twice, and the second run is counted, in which all modules are loaded.

A file or place is *crossed* if one of its functions was called. A *call between files* counts once for each pair
of functions; calls through a library, or from the Python that we generate, are those of our nearest caller. A
*climb* is a pair of files of which the called one imports, directly or not, the calling one. Since imports go
down, each is a method that overrides a lower file's, a function handed down, or a generator that goes on.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

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


# --- the walk ----------------------------------------------------------------------------------------------


def followed(work: Callable[[], object], files: Mapping[str, str]) -> set[tuple[str, str, str, str]]:
    """Calls between our files while ``work`` runs: (calling module, function, called module, function).

    ``files``: path -> module. Frames that are not ours are skipped: a call through a library is one of ours to ours.
    """
    seen: set[tuple[str, str, str, str]] = set()

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event != "call" or (called := files.get(frame.f_code.co_filename)) is None:
            return
        above = frame.f_back
        while above is not None and above.f_code.co_filename not in files:
            above = above.f_back
        caller = (files[above.f_code.co_filename], above.f_code.co_qualname) if above else ("", "")
        seen.add((*caller, called, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return seen


def jobs(folder: Path) -> dict[str, Callable[[], object]]:
    """Name -> a small piece of work that writes to a new folder below ``folder`` each time."""
    import numpy as np
    import torch
    from make_kspace import make_fastmri_file, objects
    from make_prior import make_prior

    import operators
    import recon
    from recon.cli import main

    kspace, prior = (
        make_fastmri_file(folder / "scan.h5", slices=1, H=48, W=64, noise=0.01),
        make_prior(folder),
    )
    np.savez(folder / "slices.npz", images=np.abs(objects(1, 24, 24, 24)))
    (folder / "grid.yaml").write_text(
        f"prior: {prior}\n"
        "inputs: [slices.npz]\n"
        "samples: 2\ncalls: 3\n"
        "problems: {mri: {operator: mri, sigma: .01, options: {mask: random, accel: 2, center: .2, coils: 3}}}\n"
        "methods: {dds: {options: {steps: 2}}}\n"
    )
    A = operators.MRI(torch.arange(16) % 2 == 0, shape=(16, 16))
    problem = recon.Problem(A, A(torch.ones(1, 1, 16, 16, dtype=torch.complex64)), 0.1)

    def command(*words: str) -> None:
        code = main([*words, "--out", tempfile.mkdtemp(dir=folder)])
        assert code == 0, f"recon {words[0]} ended with {code}"

    few = ("--prior", str(prior), "--steps", "3", "--samples", "2")
    return {
        "recon reconstruct": lambda: command("reconstruct", str(kspace), "--accel", "2", *few),
        "recon.sample": lambda: recon.sample(
            problem, lambda x, sigma: x / (1 + sigma**2), steps=3, samples=2
        ),
        "recon benchmark": lambda: command("benchmark", str(folder / "grid.yaml"), "--data", str(folder)),
    }


def walks() -> None:
    """Print the table of the walk."""
    files = {str(path): name for name, path in modules().items()}
    below = {name: reached(graph(), name) for name in graph()}
    print(f"{'work':20} {'files':>6} {'places':>7} {'calls between files':>20} {'climbs':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for name, work in jobs(Path(folder)).items():
            for _ in range(2):
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    calls = followed(work, files)
            crossed = {called for _, _, called, _ in calls}
            between = {call for call in calls if call[0] and call[0] != call[2]}
            climbs = {(a, b) for a, _, b, _ in between if a in below[b]}
            print(
                f"{name:20} {len(crossed):6} {len({place(file) for file in crossed}):7} {len(between):20} {len(climbs):7}"
            )
            for a, b in sorted(climbs):
                print(f"    {a} -> {b}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Who imports whom.")
    parser.add_argument("--walk", action="store_true", help="follow the calls of three small jobs too")
    given = parser.parse_args()
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
    if given.walk:
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        walks()
