"""What imports what: a module imports from lower floors only. And other promises that source text can keep or break."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tables

import operators
import recon

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"errors"},
    {"processes"},
    {
        "actions",
        "intervals",
        "state",
        "noise",
        "grids",
        "resources",
        "outcome",
        "timing",
        "chunks",
        "allocation",
    },
    {"walk"},
    {
        "solvers",
        "priors",
        "problem",
        "networks.unet",
        "networks.precondition",
        "augment",
        "optim",
        "restoration",
    },
    {"networks.autoencoder", "latent"},
    {"networks.load", "runtime", "inversion", "training"},
    {"posteriors", "networks.diffusers", "recording"},
    {"pairing"},
    {"sampling", "io", "metrics"},
    {"mri", "acquisition", "train", "train_autoencoder", "simulated", "calibration"},
    {"config", "curve_points", "memory_bench"},
    {"forward", "sampler_bench", "solver_bench", "curve_report"},
    {
        "app",
        "report",
        "bench",
        "evaluation",
        "restoring",
        "inspecting",
        "checking",
        "listing",
        "calibration_report",
    },
    {"solver_curve", "benchmark", "calibrating"},
    {"cli"},
]
FLOOR = {module: height for height, modules in enumerate(FLOORS) for module in modules}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("operators", "recon")
    for path in sorted((ROOT / package).rglob("*.py"))
}
SOURCES = [
    *MODULES.values(),
    *(p for d in ("tests", "examples", "data") for p in sorted((ROOT / d).glob("*.py"))),
]


def imports(path: Path, module: str) -> set[str]:
    """Modules that a file imports, also inside functions; relative ones resolved."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *(node.module or "").split(".")]).strip(".")
            inner = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner if inner and (node.module is None or base in ("recon", "operators")) else {base}
    return found


def place(module: str) -> str:
    """The name under which a module of recon stands on a floor: its own, or its subpackage's."""
    name = module.removeprefix("recon.")
    return name if name in FLOOR else name.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    uses = {name for name in imports(MODULES[module], module) if name.split(".")[0] in ("operators", "recon")}
    if module.startswith("operators"):
        above = {name for name in uses if name.startswith("recon")}
        assert not above, f"{module} imports {above}; operators stand alone"
    elif module not in ("recon", "recon.networks"):  # the faces: one is lazy, the other empty
        here = place(module)
        assert here in FLOOR, f"{module} stands on no floor: add it to FLOORS"
        for name in uses:
            if name.startswith("recon.") and place(name) != here:
                assert FLOOR.get(place(name), 99) < FLOOR[here], f"{module} imports {name}: not a lower floor"


def test_only_declared_edges_reach_deepinv():
    users = {module for module, path in MODULES.items() if "operators.interop" in imports(path, module)}
    assert users == {"operators", "operators.base", "recon.benchmark.peers"}
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
