"""What imports what: a module imports from lower floors only. And other promises that source text can keep or break."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys

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
    {"networks.weights"},
    {"networks.load", "runtime", "inversion"},
    {"posteriors", "networks.diffusers"},
    {"pairing"},
    {"metrics", "io"},
    {"result", "calibration"},
    {"registry"},
    {"sampling"},
    {"mri", "training"},
    {"jobs.shared"},
    {"jobs", "speed", "benchmark"},
    {"cli"},
]
"""Higher floors import lower ones. A name stands for a module, or for a folder with all that is in it."""
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}
MODULES = modules()
SOURCES = [
    *MODULES.values(),
    *(p for d in ("tests", "examples", "data") for p in sorted((ROOT / d).glob("*.py"))),
]


def floor(module: str) -> tuple[str, int]:
    """The name under which a module of recon stands, and its height."""
    parts = module.removeprefix("recon.").split(".")
    names = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    name = next((name for name in names if name in FLOOR), None)
    assert name is not None, f"{module} stands on no floor: add it to FLOORS"
    return name, FLOOR[name]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    uses = graph()[module]
    if module.startswith("operators"):
        above = {name for name in uses if name.startswith("recon")}
        assert not above, f"{module} imports {above}; operators stand alone"
    elif module not in ("recon", "recon.networks"):  # the first is lazy, the second empty
        here, height = floor(module)
        for name in (name for name in uses if name.startswith("recon.")):
            there, below = floor(name)
            assert there == here or below < height, f"{module} imports {name}: not a lower floor"


def test_no_import_ring():
    assert not rings(graph()), "modules import one another"
    pairs = between_places(graph())
    assert not rings({a: {b for x, b in pairs if x == a} for pair in pairs for a in pair}), "folders do"


def test_a_job_imports_no_job():
    jobs = {name for name in MODULES if name.startswith("recon.jobs.") and ".shared" not in name}
    assert not [(name, used) for name in jobs for used in graph()[name] & jobs]


def test_folders_hold_at_most_twenty_files():
    kept = ("operators", "recon", "configs", "data", "examples")
    folders = [ROOT / name for name in kept] + [p for name in kept for p in (ROOT / name).rglob("*/")]
    counts = {
        str(folder.relative_to(ROOT)): sum(
            p.is_file() and p.suffix != ".pyc" and not p.name.startswith(".") for p in folder.iterdir()
        )
        for folder in folders
        if folder.name != "__pycache__"
    }
    assert not {name: count for name, count in counts.items() if count > 20}


def test_only_declared_edges_reach_deepinv():
    users = {module for module, used in graph().items() if "operators.interop" in used}
    assert users == {"operators", "operators.base", "recon.benchmark.methods.peers"}
    tree = ast.parse(MODULES["operators.base"].read_text())
    assert not [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "interop"], (
        "import it lazily"
    )


@pytest.mark.parametrize("module", MODULES)
def test_public_names_exist(module):
    loaded = importlib.import_module(module)
    missing = [name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)]
    assert not missing


def test_every_solver_and_sampler_has_a_row():
    assert set(recon.SOLVERS) == {row.name for row in tables.SOLVERS.values()}
    assert set(recon.POSTERIORS) == {row.name for row in tables.POSTERIORS.values()}


def test_every_operator_has_a_row():
    def kinds(operator) -> set[type]:
        parts = [
            v for value in vars(operator).values() for v in (value if isinstance(value, tuple) else (value,))
        ]
        inner = [kinds(part) for part in parts if isinstance(part, operators.Operator)]
        return set(type(operator).__mro__).union(*inner)

    tested = set().union(*(kinds(make()) for make in tables.OPERATORS.values()))
    homes = [
        importlib.import_module(m) for m in MODULES if m.startswith("operators.") and m != "operators.interop"
    ]
    defined = {value for home in homes for value in vars(home).values() if isinstance(value, type)}
    missing = {kind.__name__ for kind in defined - tested if issubclass(kind, operators.Operator)}
    assert not missing, f"rows are missing in tests/tables.py: {missing}"


@pytest.mark.parametrize(
    "code", ["import recon", "from recon.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"]
)
def test_help_imports_no_torch(code):
    code += "\nimport sys; sys.exit(','.join({'torch', 'deepinv', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_is_unpickled():
    for path in SOURCES:
        where = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
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
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    machine = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/")
    for path in [ROOT / name for name in listed] or SOURCES:
        if path.is_file() and path.suffix not in {".h5", ".png", ".safetensors", ".npz", ".npy"}:
            found = machine.search(path.read_text(errors="replace"))
            assert not found, f"{path.relative_to(ROOT)} names {found and found.group()}"
