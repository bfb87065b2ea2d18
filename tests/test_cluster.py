"""Work spread over processes by dask: done once each, also where a worker is killed in the middle of its piece."""

from __future__ import annotations

import json
import os
import sys

import h5py
import numpy as np
import pytest
import yaml
from make_kspace import make_fastmri_file
from make_prior import make_prior

from recon.cli import main
from recon.errors import ConfigError, InputError
from recon.runtime import cluster
from recon.runtime.cluster import Cluster, own_device
from recon.runtime.runtime import Runtime

MORTAL = """
import os, signal
from pathlib import Path
from recon.posteriors import DDS

MARK = Path(__file__).with_suffix(".died")

class Mortal(DDS):
    def denoise(self, x, sigma, memo):
        if sigma < 1:
            try:
                os.close(os.open(MARK, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return super().denoise(x, sigma, memo)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Slices, a tiny prior, and a sampler that kills its process once."""
    folder = tmp_path_factory.mktemp("cluster")
    y, x = np.mgrid[-1 : 1 : 24 * 1j, -1 : 1 : 24 * 1j]
    np.savez(folder / "slices.npz", images=np.stack([x**2 + y**2 < 0.6] * 2).astype(np.float32))
    make_prior(folder)
    (folder / "mortal.py").write_text(MORTAL)
    yield folder
    sys.modules.pop("mortal", None)


@pytest.fixture(scope="module")
def address():
    """The scheduler of two workers of this machine."""
    pytest.importorskip("distributed")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    with Cluster(workers=2).client(2) as client:
        yield client.scheduler.address
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a process that is killed")
def test_the_cell_of_a_worker_that_dies_is_done_again(folder, address, capsys):
    methods = {"dds": {"sampler": "mortal:Mortal"}, "zero-filled": {"sampler": "adjoint"}, "ddrm": {}}
    mri = {
        "operator": "mri",
        "sigma": 0.01,
        "options": {"mask": "random", "accel": 2, "center": 0.2, "coils": 2},
    }
    grid = {
        "inputs": ["slices.npz"],
        "prior": str(folder / "tiny.safetensors"),
        "samples": 2,
        "calls": 3,
        "seeds": [0, 1],
        "pictures": 0,
        "problems": {"mri": mri},
        "methods": methods,
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid))
    command = [
        "benchmark",
        str(folder / "grid.yaml"),
        "--plugin",
        str(folder / "mortal.py"),
        "--data",
        str(folder),
    ]
    assert main([*command, "--out", str(folder / "out"), "--engine", "dask", "--scheduler", address]) == 1
    assert (folder / "mortal.died").exists()
    said = capsys.readouterr()
    assert "3 cells done now, 0 before, 2 failed" in said.out and "singular value" in said.err
    rows = [json.loads(line) for line in (folder / "out/rows.jsonl").read_text().splitlines()]
    assert sorted((row["cell"]["method"], row["status"]) for row in rows) == [
        ("ddrm", "failed"), ("ddrm", "failed"), ("dds", "done"), ("dds", "done"), ("zero-filled", "done"),
    ]  # fmt: skip
    assert main([*command, "--out", str(folder / "here")]) == 1
    here = [json.loads(line) for line in (folder / "here/rows.jsonl").read_text().splitlines()]
    ours, theirs = ({r["key"]: r.get("metrics", {}) for r in found} for found in (rows, here))
    assert ours.keys() == theirs.keys()
    for key, metrics in theirs.items():
        assert ours[key] == pytest.approx(metrics, rel=1e-4)
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a process that is killed")
def test_the_file_of_a_worker_that_dies_is_gone_on_with(folder, address, capsys):
    (folder / "mortal.died").unlink(missing_ok=True)
    for name in ("a", "b"):
        make_fastmri_file(folder / f"{name}.h5", slices=2, recon=(24, 20), noise=0.01)
    (folder / "c.h5").write_bytes(b"no k-space")
    files = [str(folder / f"{name}.h5") for name in "abc"]
    options = ["--accel", "2", "--center", ".3", "--samples", "2", "--steps", "2", "--slices", "1"]
    options += ["--prior", str(folder / "tiny.safetensors"), "--sampler", "Mortal"]
    options += ["--plugin", str(folder / "mortal.py"), "--out", str(folder / "scans")]
    spread = ["--engine", "dask", "--scheduler", address]
    assert main(["reconstruct", *files, *options, *spread]) == 1
    said = capsys.readouterr()
    assert (folder / "mortal.died").exists() and "c.h5" in said.err and "Results: " in said.out
    for name in ("a", "b"):
        with h5py.File(folder / f"scans/{name}.h5") as file:
            assert np.isfinite(np.asarray(file["reconstruction"])).all()
    assert not list((folder / "scans").glob("*.part"))
    assert main(["reconstruct", *files[:2], *options]) == 0
    assert capsys.readouterr().out.count("is done already") == 2


@pytest.mark.parametrize(
    "options, said",
    [
        (["--engine", "dsk"], '"dask"'),
        (["--workers", "2"], "without --engine dask"),
        (["--scheduler", "tcp://localhost:1"], "without --engine dask"),
        (["--engine", "dask", "--workers", "0"], "at least 1"),
        (
            ["--engine", "dask", "--workers", "2", "--scheduler", "tcp://localhost:1"],
            "Leave one of the two out",
        ),
    ],
)
def test_what_no_engine_can_do_is_refused(capsys, options, said):
    assert main(["benchmark", "samplers", "--dry-run", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "SECONDS", 0.5)
    with pytest.raises(ConfigError, match="tcp://127.0.0.1:9 does not answer"):
        list(Cluster("tcp://127.0.0.1:9").results(len, [("abc",)]))


def test_without_dask_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"pip install 'recon-posterior\[distributed\]'"):
        list(Cluster().results(len, [("abc",)]))


@pytest.mark.parametrize("name, asked, device", [(1, "auto", "cuda:1"), ("3", "cuda", "cuda:1"), ("node-7", "auto", "auto"), (1, "cpu", "cpu")])  # fmt: skip
def test_a_worker_has_the_gpu_of_its_number(monkeypatch, name, asked, device):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(distributed, "get_worker", lambda: type("Worker", (), {"name": name}))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert own_device(Runtime(asked)).device == device


def test_an_error_keeps_its_lines_between_processes():
    error = InputError("what.", "why.", "do.")
    kind, lines = error.__reduce__()
    again = kind(*lines)
    assert type(again) is InputError and (again.what, again.why, again.do) == ("what.", "why.", "do.")
