"""What source text can keep or break: floors, names with one meaning, registries, rows, docstrings, safety.

In this order: who imports whom; what a name stands for; where registries are read and which test runs over
them; docstrings and formatting; how the tests themselves are built; what must never be in the sources.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from types import FunctionType

import measurements
import pytest
import tables
from import_graph import ROOT, between_places, graph, modules, rings

import operators
import recon

FLOORS = [
    {"errors"},
    {"processes"},
    {"actions", "intervals", "state", "noise", "grids", "runtime.allocation"},
    {"walk"},
    {"solvers", "priors", "problem", "networks.unet", "networks.precondition"},
    {"networks.autoencoder", "latent", "restoration"},
    {"networks.card"},
    {"networks.weights"},
    {"networks.checkpoints"},
    {"networks.load", "runtime", "inversion"},
    {"posteriors"},
    {"pairing"},
    {"metrics", "io"},
    {"result", "calibration"},
    {"registry"},
    {"sampling"},
    {"mri"},
    {"training", "noncartesian"},
    {"jobs.shared"},
    {"jobs", "speed", "benchmark"},
    {"tuning"},
    {"cli"},
]
"""Higher floors import lower ones. A name stands for a module, or for a folder with all that is in it."""
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}
MODULES = modules()
TESTS = sorted((ROOT / "tests").glob("*.py"))
SOURCES = [
    *MODULES.values(),
    *TESTS,
    *(path for folder in ("examples", "data") for path in sorted((ROOT / folder).glob("*.py"))),
]
FEW = 20
"""Files of one folder. Only ``tests/`` may hold more: its files are looked for by name."""


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed once."""
    return ast.parse(path.read_text())


# --- floors: who imports whom ------------------------------------------------------------------------------


def floor(module: str) -> tuple[str, int]:
    """The name under which a module of recon stands, and its height."""
    parts = module.removeprefix("recon.").split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    name = next((name for name in names if name in FLOOR), None)
    assert name is not None, f"{module} stands on no floor: add it to FLOORS"
    return name, FLOOR[name]


def test_imports_go_down():
    """A module imports from lower floors, or from its own folder; operators import nothing of recon."""
    wrong = []
    for module, used in graph().items():
        ours = {name for name in used if name.startswith("recon.")}
        if module.startswith("operators"):
            wrong += [f"{module} imports {name}: operators stand alone" for name in ours]
        elif module not in ("recon", "recon.networks"):  # the first is lazy, the second empty
            name, height = floor(module)
            for other in ours:
                below, its_height = floor(other)
                if below != name and its_height >= height:
                    wrong.append(f"{module} imports {other}: not a lower floor")
    assert not wrong, "\n".join(wrong)


def test_no_import_ring():
    """Neither among files nor among folders, imports inside functions and under TYPE_CHECKING counted."""
    assert not rings(graph()), "modules import one another"
    pairs = between_places(graph())
    assert not rings({a: {b for x, b in pairs if x == a} for pair in pairs for a in pair}), "folders do"


def test_a_job_imports_no_job():
    """What two jobs share stands in `recon.jobs.shared` or lower."""
    jobs = {name for name in MODULES if name.startswith("recon.jobs.") and ".shared" not in name}
    assert not [(name, used) for name in jobs for used in graph()[name] & jobs]


def test_folders_hold_few_files():
    """At most `FEW`, hidden and compiled ones not counted."""
    kept = ("operators", "recon", "configs", "data", "examples")
    folders = [ROOT / name for name in kept] + [p for name in kept for p in (ROOT / name).rglob("*/")]
    counts = {
        str(folder.relative_to(ROOT)): sum(
            p.is_file() and p.suffix != ".pyc" and not p.name.startswith(".") for p in folder.iterdir()
        )
        for folder in folders
        if folder.name != "__pycache__"
    }
    assert not {name: count for name, count in counts.items() if count > FEW}


def test_only_declared_edges_reach_deepinv():
    """`operators.physics` is below the operators, `operators.interop` above; deepinv waits until it is asked for."""
    edges = {
        below: {module for module, used in graph().items() if below in used}
        for below in ("operators.physics", "operators.interop")
    }
    assert edges == {
        "operators.physics": {
            "operators", "operators.base", "operators.interop", "recon.benchmark.methods.peers",
        },
        "operators.interop": {"operators"},
    }  # fmt: skip
    users, eager = set(), set()
    for module, path in MODULES.items():
        parsed = tree(path)
        functions = [n for n in ast.walk(parsed) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        lazy = {id(n) for function in functions for n in ast.walk(function)}
        for node in ast.walk(parsed):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.split(".")[0] == "deepinv" for name in names):
                users.add(module)
                eager |= set() if id(node) in lazy else {module}
    assert users == {
        "operators.physics", "operators.interop", "recon.benchmark.methods.peers", "recon.speed.run",
    "recon.speed.scans",
        "recon.networks.checkpoints.deepinv",
    }  # fmt: skip
    assert not eager, "import it inside the function that needs it"


@pytest.mark.parametrize(
    "code", ["import recon", "from recon.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"]
)
def test_help_imports_no_torch(code):
    """Importing the package and printing its help take no time: torch comes with the first use."""
    code += "\nimport sys; sys.exit(','.join({'torch', 'deepinv', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- names: what each stands for ---------------------------------------------------------------------------


def test_public_names_exist():
    """Whatever ``__all__`` promises is there."""
    loaded = [(name, importlib.import_module(name)) for name in MODULES]
    assert not [
        f"{name}.{public}"
        for name, module in loaded
        for public in getattr(module, "__all__", ())
        if not hasattr(module, public)
    ]


def public_names(module: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Names that a module defines at its top level for others, each with its statement."""
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            names = []
        yield from ((name, node) for name in names if not name.startswith("_"))


def test_one_name_one_meaning():
    """A public class or constant is defined in one module of `recon` and `operators`; so is a function that others import.

    Two files may each have a helper of the same name that nobody meets outside of it.
    """
    homes: dict[str, set[str]] = defaultdict(set)
    helpers: set[str] = set()
    imported: set[str] = set()
    for module, path in MODULES.items():
        for name, node in public_names(tree(path)):
            homes[name].add(module)
            if isinstance(node, ast.FunctionDef):
                helpers.add(name)
        imported |= {
            alias.name
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
    twice = {
        name: sorted(where)
        for name, where in homes.items()
        if len(where) > 1 and (name not in helpers or name in imported)
    }
    assert not twice, "defined more than once:\n" + "\n".join(
        f"{name}: {twice[name]}" for name in sorted(twice)
    )


# --- registries: one place reads them, a test runs over each -----------------------------------------------

REGISTRIES = {
    "SOLVERS": "recon.solvers",
    "POSTERIORS": "recon.posteriors",
    "GRIDS": "recon.grids",
    "PRIORS": "recon.networks.load",
    "OPERATORS": "recon.registry.operators",
    "MASKS": "operators.masks",
    "POLICIES": "recon.posteriors.active.choosing",
    "SCHEMES": "recon.posteriors.ensemble.resampling",
    "CLASSICAL": "recon.benchmark.methods.classical",
    "PEERS": "recon.benchmark.methods.peers",
    "FAMILIES": "recon.networks.checkpoints.families",
}
"""Names of the command line -> what they stand for, and the module where they stand."""


def read_by_key(node: ast.AST) -> str | None:
    """The name of what is indexed, or asked by ``get``, ``pop`` or ``setdefault``."""
    if isinstance(node, ast.Subscript):
        holder = node.value
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("get", "pop", "setdefault")
    ):
        holder = node.func.value
    else:
        return None
    return holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", None)


def test_registries_are_read_in_one_place():
    """By key only in `recon.registry` and beside the registry itself; everybody else asks ``make_...``."""
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(tree(path)):
            name = read_by_key(node)
            home = REGISTRIES.get(name or "")
            allowed = ("recon.registry", home, home.rpartition(".")[0]) if home else ()
            near = any(module == place or module.startswith(f"{place}.") for place in allowed if "." in place)
            if home and not near:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} reads {name}")
    assert not wrong, "\n".join(wrong)


def test_every_solver_and_sampler_has_a_row():
    assert set(recon.SOLVERS) == {row.name for row in tables.SOLVERS.values()}
    assert set(recon.POSTERIORS) == {row.name for row in tables.POSTERIORS.values()}


def test_every_kind_of_solver_is_represented():
    """`tables.REPRESENTATIVES` has one row of each family, with noise and without, and of each file of solvers."""
    chosen = [tables.SOLVERS[label] for label in tables.REPRESENTATIVES]
    kinds = {(row.family, row.stochastic) for row in tables.SOLVERS.values()}
    assert {(row.family, row.stochastic) for row in chosen} == kinds
    files = {type(row.make()).__module__ for row in tables.SOLVERS.values()}
    assert {type(row.make()).__module__ for row in chosen} == files


def test_every_operator_has_a_row():
    """Every class of operators is in `tables.OPERATORS` or `tables.NONLINEAR`, alone or as a part."""

    def kinds(operator) -> set[type]:
        parts = [
            v for value in vars(operator).values() for v in (value if isinstance(value, tuple) else (value,))
        ]
        inner = [kinds(part) for part in parts if isinstance(part, operators.Operator)]
        return set(type(operator).__mro__).union(*inner)

    rows = {**tables.OPERATORS, **tables.NONLINEAR, **measurements.DEVIANCES}
    tested = set().union(*(kinds(make()) for make in rows.values()))
    homes = [
        importlib.import_module(m) for m in MODULES if m.startswith("operators.") and m != "operators.interop"
    ]
    defined = {value for home in homes for value in vars(home).values() if isinstance(value, type)}
    missing = {kind.__name__ for kind in defined - tested if issubclass(kind, operators.Operator)}
    assert not missing, f"rows are missing in tests/tables.py: {missing}"


def parametrised_over(path: Path) -> set[tuple[str, str]]:
    """(module, name) of all that the parameters of a file's tests are made of, through names of the file too."""
    file = tree(path)
    origin = {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(file)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    values = {name: node for name, node in public_names(file) if isinstance(node, ast.Assign | ast.AnnAssign)}

    def sources(node: ast.AST) -> Iterator[tuple[str, str]]:
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in origin:
                yield origin[part.id]
            elif isinstance(part, ast.Name) and part.id in values:
                yield from sources(values[part.id].value)
            elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                yield ".".join(origin.get(part.value.id, (part.value.id,))), part.attr

    calls = [
        n for n in ast.walk(file) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "parametrize"
    ]
    return {found for call in calls for found in sources(call.args[1])}


def test_every_name_of_the_command_line_is_tested():
    """Some test runs over each registry itself, so that a new name is tested without a line of its own."""
    tested = set().union(*(parametrised_over(path) for path in TESTS))
    missing = {name for name, home in REGISTRIES.items() if not {(home, name), ("recon", name)} & tested}
    assert not missing


# --- docstrings and formatting -----------------------------------------------------------------------------

MISSING = 0
"""Public functions, classes and methods without a docstring: never more than this."""
UNFORMATTED = 26
"""Lines of the packages that the formatter is told to leave: never more than this."""


def undocumented(module: str) -> Iterator[str]:
    """Public functions, classes and methods of a module without a docstring.

    A method that overrides one of ours, or an attribute that the base's docstring names, has the base's.
    """
    for node in tree(MODULES[module]).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield f"{module}.{node.name}"
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            public = isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
            if public and ast.get_docstring(inner) is None:
                bases = getattr(importlib.import_module(module), node.name).__mro__[1:]
                if not any(documents(base, inner.name) for base in bases):
                    yield f"{module}.{node.name}.{inner.name}"


def documents(base: type, name: str) -> bool:
    """Whether one of our classes says what its method or attribute ``name`` is."""
    if base.__module__.partition(".")[0] not in ("recon", "operators") or not (
        name in vars(base) or name in getattr(base, "__annotations__", ())
    ):
        return False
    member = vars(base).get(name)
    own = isinstance(member, FunctionType | property | classmethod | staticmethod | cached_property)
    return bool(member.__doc__) if own else re.search(rf"\b{name}\b", base.__doc__ or "") is not None


def test_public_names_have_docstrings():
    found = [line for module in MODULES for line in undocumented(module)]
    assert len(found) <= MISSING, "\n".join(found)


def test_the_formatter_is_left_alone():
    """``# fmt: skip`` is for tables that read as tables."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in MODULES.values()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"# fmt: (skip|off)", line)
    ]
    assert len(found) <= UNFORMATTED, "\n".join(found)


# --- the tests themselves ----------------------------------------------------------------------------------


def test_no_test_imports_another():
    """What two test files share stands in a file of its own beside them."""
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        if name.removeprefix("tests.").startswith("test_")
    ]
    assert not wrong


# --- what must never be in the sources ---------------------------------------------------------------------


def test_nothing_is_unpickled():
    """No module that unpickles, and ``torch.load`` of tensors alone: a file of weights runs no code."""
    for path in SOURCES:
        where = path.relative_to(ROOT)
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "dill", "cloudpickle", "joblib", "marshal"}, (
                    f"{where}:{node.lineno}"
                )
            elif isinstance(node, ast.Call):
                given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                assert not given.get("allow_pickle"), f"{where}:{node.lineno} allow_pickle"
                if ast.unparse(node.func) == "torch.load":
                    assert given.get("weights_only") is True, f"{where}:{node.lineno} torch.load"


def test_no_machine_paths():
    """No file names a folder of the machine on which it was written."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    machine = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/")
    for path in [ROOT / name for name in listed] or SOURCES:
        if path.is_file() and path.suffix not in {".h5", ".png", ".safetensors", ".npz", ".npy"}:
            found = machine.search(path.read_text(errors="replace"))
            assert not found, f"{path.relative_to(ROOT)} names {found and found.group()}"
