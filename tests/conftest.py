"""Where the tests find the packages and the data that the project does not ship."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets: $RECON_SHARED_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("RECON_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set RECON_SHARED_DATA to their folder to run this test")
    return folder


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
