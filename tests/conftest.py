"""Where the tests find the packages and the data that the project does not ship, and which of them run.

The default suite leaves out what is marked ``full``: the rest of the products of samplers and solvers (tables.crossed).
``pytest -m full`` runs that alone, ``pytest --full`` everything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: tensors this small only wait for threads

os.environ["RECON_CACHE"] = "off"  # tests leave nothing in the user's cache

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run the tests marked full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full") or "full" in config.getoption("-m"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    if left_out and len(left_out) < len(items):  # whoever names only such tests wants them
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full")]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets: $RECON_SHARED_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("RECON_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECON_SHARED_DATA to their folder to run this test")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of a tiny prior of complex images."""
    from make_prior import make_prior

    return str(make_prior(tmp_path_factory.mktemp("prior")))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a reconstruction cost half a second each."""
    monkeypatch.setattr("recon.jobs.reconstruct.save_panel", lambda *a, **k: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(autouse=True, scope="module")
def registries() -> Iterator[None]:
    """Plugins that a module's tests register are gone after it: the tables hold the project's own names."""
    import recon

    before = [(registry, dict(registry)) for registry in (recon.SOLVERS, recon.POSTERIORS)]
    yield
    for registry, own in before:
        registry.clear()
        registry.update(own)
