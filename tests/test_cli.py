"""The command line: fast help, every command, and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT
from make_kspace import make_fastmri_file
from make_prior import make_prior
from PIL import Image

from recon.cli import main
from recon.cli.handlers import HANDLERS
from recon.registry.plugins import PLUGINS
from recon.solvers import SOLVERS

pytestmark = pytest.mark.usefixtures("no_pictures")

OPERATOR = """
from dataclasses import dataclass
import torch
from torch import Tensor
import operators as op

@dataclass(frozen=True, eq=False)
class Convolve(op.Linear):
    otf: Tensor
    domain: tuple = (1, 16, 12)

    def forward(self, x):
        return torch.fft.ifft2(torch.fft.fft2(x) * self.otf).real

class Example(Convolve):
    @classmethod
    def example(cls):
        return cls(torch.ones(16, 12, dtype=torch.complex64))

class Affine(op.Linear):
    domain = (1, 4, 4)

    def forward(self, x):
        return x + 1
"""


@pytest.fixture
def own_solvers():
    """What a test adds to the solvers is taken out again, and its plugins are forgotten."""
    before = dict(SOLVERS)
    yield
    SOLVERS.clear()
    SOLVERS.update(before)
    for name in PLUGINS:
        sys.modules.pop(name, None)
    PLUGINS.clear()


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys; from recon.cli import main; code = main(['--help']); "
        "heavy = {'torch', 'numpy', 'deepinv', 'h5py', 'yaml'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy or code else 0)"
    )
    times = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        times.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert "reconstruct" in done.stdout
    assert min(times) < 0.3


@pytest.mark.parametrize("name", [name for name in HANDLERS if name != "version"])
def test_every_command_has_help_and_a_dry_run(capsys, name):
    assert main([name, "--help"]) == 0
    assert "--dry-run" in capsys.readouterr().out


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 0
    assert "recon demo" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("recon ")


@pytest.mark.parametrize(("typed", "meant"), [("reconstuct", "reconstruct"), ("demmo", "demo")])
def test_an_unknown_command_answers_with_the_nearest(capsys, typed, meant):
    assert main([typed]) == 2
    assert f'"{meant}"' in capsys.readouterr().err


def test_the_benchmark_command_is_not_there_yet(capsys):
    assert main(["benchmark", "x.yaml"]) == 2
    capsys.readouterr()


def test_list(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in ("super-resolution", "dds", "dpm++2m", "equispaced-fraction", "stochastic", "reference"):
        assert name in out
    assert main(["list", "solver"]) == 2
    assert '"solvers"' in capsys.readouterr().err


def test_inspect(tmp_path, capsys):
    path = make_fastmri_file(tmp_path / "a.h5", recon=(16, 24), acquired=(2, 22), noise=0.01)
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for said in (
        "kspace (2, 4, 32, 24) complex64",
        "4 coils",
        "16 x 24",
        "20 of 24 lines",
        "reconstruction_rss",
        "noise",
    ):
        assert said in out


def test_the_noise_of_inspect_is_the_files(tmp_path, capsys):
    path = make_fastmri_file(tmp_path / "a.h5", 1, 4, 64, 64, recon=(32, 64), noise=0.02, scale=1e-4)
    main(["inspect", str(path)])
    line = next(line for line in capsys.readouterr().out.splitlines() if "noise " in line)
    assert float(line.split()[1]) == pytest.approx(0.02e-4, rel=0.2)


def test_reconstruct(tiny, tmp_path, capsys):
    path = make_fastmri_file(tmp_path / "a.h5", slices=1)
    arguments = [
        "reconstruct",
        str(path),
        "--accel",
        "2",
        "--center",
        ".3",
        "--prior",
        tiny,
        "--steps",
        "2",
        "--samples",
        "1",
    ]
    arguments += ["--device", "cpu", "--out", str(tmp_path / "out"), "--solver", "ddim"]
    assert main([*arguments, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "solver: ddim" in out and "12 of 24 lines" in out and not (tmp_path / "out").exists()
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert (
        "PSNR" in out and "fastMRI" in out and "acceleration 2" in out and str(tmp_path / "out/a.h5") in out
    )
    assert err == ""  # the bar keeps quiet where no terminal is


def test_reconstruct_from_a_configuration(tiny, tmp_path, capsys):
    path = make_fastmri_file(tmp_path / "a.h5", slices=1)
    config = tmp_path / "my.yaml"
    config.write_text(
        f"prior: {tiny}\nsteps: 2\nsamples: 1\nmask: {{accel: 2, center: 0.3}}\nruntime: {{device: cpu}}\n"
    )
    command = ["reconstruct", str(path), "--config", str(config), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    config.write_text(config.read_text() + "stpes: 3\n")
    assert main(command) == 2
    assert '"steps"' in capsys.readouterr().err


def test_a_prior_and_a_solver_of_the_users_own(tmp_path, capsys, own_solvers):
    plugin = tmp_path / "my_prior.py"
    plugin.write_text(
        "import torch\nfrom recon.priors import Gaussian\nfrom recon.solvers import Euler\n"
        "def smooth():\n    return Gaussian(torch.zeros(1, 32, 24), 0.1)\n"
        "class Mine(Euler):\n    pass\n"
    )
    path = make_fastmri_file(tmp_path / "a.h5", slices=1)
    command = [
        "reconstruct",
        str(path),
        "--plugin",
        str(plugin),
        "--prior",
        "my_prior:smooth",
        "--solver",
        "my_prior:Mine",
    ]
    assert main([*command, "--steps", "2", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()


def test_check(tmp_path, capsys):
    (tmp_path / "optics.py").write_text(OPERATOR)
    plugin = ["--plugin", str(tmp_path / "optics.py")]
    assert main(["check", "optics:Example", *plugin]) == 0
    assert "All laws hold" in capsys.readouterr().out
    assert main(["check", "Convolve", *plugin]) == 2
    said = capsys.readouterr().err
    assert "needs otf" in said and "otf=otf.npy" in said and "example" in said
    np.save(tmp_path / "otf.npy", np.exp(1j * np.arange(192.0)).reshape(16, 12).astype(np.complex64))
    assert main(["check", "optics:Convolve", *plugin, "--args", f"otf={tmp_path}/otf.npy"]) == 0
    capsys.readouterr()
    assert main(["check", "optics:Affine", *plugin]) == 1
    assert "linear: measured error" in capsys.readouterr().err
    assert main(["check", "optics:Convolv", *plugin]) == 2
    assert '"Convolve"' in capsys.readouterr().err or "Convolve" in said
    assert main(["check", "no_such_module:Convolve"]) == 2
    assert "--plugin" in capsys.readouterr().err


def images(folder):
    y, x = np.mgrid[-1:1:32j, -1:1:24j]
    np.save(folder / "image.npy", (np.exp(-4 * (x**2 + y**2))).astype(np.float32))
    Image.fromarray((255 * np.exp(-4 * (x**2 + y**2))).astype(np.uint8)).save(folder / "picture.png")


def restore(folder, prior, *arguments):
    command = ["restore", *arguments, "--prior", prior, "--steps", "3", "--samples", "2", "--device", "cpu"]
    return main([*map(str, command), "--out", str(folder / "out")])


def test_restore_complex_images(tiny, tmp_path, capsys):
    images(tmp_path)
    files = [tmp_path / "image.npy", tmp_path / "picture.png"]
    assert (
        restore(tmp_path, tiny, *files, "--operator", "mri", "--operator-args", "accel=2", "mask=random") == 0
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "image.npz",
        "image.png",
        "picture.npz",
        "picture.png",
    ]
    with np.load(tmp_path / "out/image.npz") as found:
        assert found["samples"].shape == (2, 32, 24) and np.iscomplexobj(found["mean"])
        assert json.loads(str(found["config"]))["operator"] == "mri"
    assert restore(tmp_path, tiny, files[0], "--operator", "mri") == 2  # it is there already
    capsys.readouterr()


def test_restore_refuses_what_does_not_fit(tiny, tmp_path, capsys):
    images(tmp_path)
    file = tmp_path / "image.npy"
    for arguments, said in [
        (["--operator", "inpaintin"], '"inpainting"'),
        (["--operator", "mri", "--operator-args", "acel=2"], '"accel"'),
        (["--operator", "mri", "--sigma", "-1"], "sigma"),
        (["--operator", "mri", "--measured"], "--size"),
    ]:
        assert restore(tmp_path, tiny, file, *arguments) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


REAL = ["inpainting", "super-resolution", "blur", "motion-blur", "denoising"]


@pytest.mark.parametrize("operator", REAL)
def test_restore_with_a_prior_of_complex_images(tiny, tmp_path, capsys, operator):
    images(tmp_path)
    assert restore(tmp_path, tiny, tmp_path / "picture.png", "--operator", operator) == 0
    with np.load(tmp_path / "out/picture.npz") as found:
        assert found["mean"].shape == (32, 24) and np.iscomplexobj(found["measurement"])
    capsys.readouterr()


def test_operators_of_complex_images_need_such_a_prior(tmp_path, capsys):
    images(tmp_path)
    real = make_prior(tmp_path, "real", complex_images=False)
    assert restore(tmp_path, real, tmp_path / "picture.png", "--operator", "mri") == 2
    assert "acts on complex images" in capsys.readouterr().err


@pytest.mark.parametrize("operator", REAL)
def test_restore_real_images(tmp_path, capsys, operator):
    images(tmp_path)
    real = make_prior(tmp_path, "real", complex_images=False)
    assert restore(tmp_path, real, tmp_path / "picture.png", "--operator", operator) == 0
    with np.load(tmp_path / "out/picture.npz") as found:
        assert found["mean"].shape == (32, 24) and found["mean"].dtype == np.float32
    capsys.readouterr()


def test_restore_a_measurement_with_an_operator_of_the_users_own(tmp_path, capsys):
    (tmp_path / "my_optics.py").write_text(OPERATOR)
    np.save(tmp_path / "otf.npy", np.ones((16, 12), np.complex64))
    np.save(tmp_path / "y.npy", np.random.default_rng(0).random((1, 16, 12)).astype(np.float32))
    real = make_prior(tmp_path, "real", complex_images=False)
    arguments = ["--operator", "my_optics:Convolve", "--operator-args", f"otf={tmp_path}/otf.npy"]
    arguments += ["--plugin", tmp_path / "my_optics.py", "--measured", "--size", "16", "12"]
    assert restore(tmp_path, real, tmp_path / "y.npy", *arguments) == 0
    capsys.readouterr()


@pytest.mark.parametrize("link", [False, True], ids=["itself", "by a link"])
@pytest.mark.parametrize("kind", ["picture", "arrays", "a mask"])
def test_restore_writes_over_no_input(tiny, tmp_path, capsys, kind, link):
    """The picture of the result, or its arrays, would be what was read."""
    images(tmp_path)
    (tmp_path / "out").mkdir()
    source, arguments = tmp_path / "image.npy", []
    read = {"picture": "picture.png", "arrays": "image.npz", "a mask": "image.png"}[kind]
    target = tmp_path / "out" / read
    if kind == "picture":
        source = target
    elif kind == "a mask":
        arguments = ["--operator-args", f"mask={target}"]
    else:  # an .npz is no input by itself; a link of another suffix to it is
        source = tmp_path / "out/image.npy"
        (tmp_path / "image.npy").rename(source)
    if kind != "arrays":
        (tmp_path / "picture.png").rename(target)
    elif link:
        target.symlink_to(source)
    else:
        os.link(source, target)
    if link and kind != "arrays":
        real = target.rename(tmp_path / "real.png")
        target.symlink_to(real)
        source = real.rename(tmp_path / "picture.png") if kind == "picture" else source
        target.unlink()
        target.symlink_to(tmp_path / "picture.png" if kind == "picture" else real)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for more in ([], ["--dry-run"]):
        command = [source, "--operator", "inpainting", *arguments, "--overwrite", *more]
        assert restore(tmp_path, tiny, *command) == 2
        assert "would overwrite" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_restore_in_the_folder_of_its_input(tiny, tmp_path, capsys, monkeypatch):
    images(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "picture.png").read_bytes()
    command = ["restore", "picture.png", "--operator", "blur", "--prior", tiny, "--out", ".", "--overwrite"]
    assert main(command) == 2 and "would overwrite" in capsys.readouterr().err
    assert (tmp_path / "picture.png").read_bytes() == before and not (tmp_path / "picture.npz").exists()


def test_pictures_are_arrays_everywhere(tiny, tmp_path, capsys):
    images(tmp_path)
    mask = np.random.default_rng(0).random((32, 24)) < 0.6
    mask[16, 12] = True
    Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / "mask.png")
    picture = tmp_path / "picture.png"
    for operator in ("inpainting", "mri"):
        out = ["--operator", operator, "--operator-args", f"mask={tmp_path}/mask.png", "--overwrite"]
        assert restore(tmp_path, tiny, picture, *out) == 0
        with np.load(tmp_path / "out/picture.npz") as found:
            assert np.array_equal(found["measurement"].reshape(-1, 32, 24)[0] != 0, mask)
    measured = ["--operator", "blur", "--measured", "--size", "32", "24", "--overwrite"]
    assert restore(tmp_path, tiny, picture, *measured) == 0
    missing = ["--operator", "inpainting", "--operator-args", "mask=none.png"]
    capsys.readouterr()
    assert restore(tmp_path, tiny, picture, *missing) == 2
    assert "none.png does not exist" in capsys.readouterr().err


def test_what_cannot_be_paired_is_refused_before_anything_runs(tiny, tmp_path, capsys):
    """By the dry run as by the run: the sampler has a word on operator and solver."""
    images(tmp_path)
    for arguments, said in [
        (["--sampler", "mcg", "--solver", "pndm"], "PNDM"),
        (["--sampler", "smc", "--solver", "pc"], "PredictorCorrector"),
    ]:
        for more in ([], ["--dry-run"]):
            command = [
                "restore",
                str(tmp_path / "image.npy"),
                "--operator",
                "inpainting",
                "--prior",
                tiny,
                *arguments,
            ]
            assert main([*command, "--out", str(tmp_path / "out"), *more]) == 2
            assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


OWN = (
    """
from recon import Step
from recon.posteriors import Posterior

class Plain:
    def step(self, denoise, x, sigma, target, past, draw):
        est = denoise(x, sigma)
        return Step(est.x0 + target * est.eps if target else est.x0, 0.0, est)

class Same(Posterior):
    pass

def shrink(x, sigma):
    return x / (1 + sigma**2)

"""
    + OPERATOR
)


@pytest.mark.parametrize("qualified", ["", "my_own_things:"])
def test_a_plugins_names_are_understood_by_every_command(tmp_path, capsys, own_solvers, qualified):
    images(tmp_path)
    (tmp_path / "my_own_things.py").write_text(OWN)
    plugin = ["--plugin", str(tmp_path / "my_own_things.py")]
    own = [
        f"--{kind}={qualified}{name}"
        for kind, name in [("solver", "Plain"), ("sampler", "Same"), ("prior", "shrink")]
    ]
    np.save(tmp_path / "otf.npy", np.ones((32, 24), np.float32))
    otf = f"otf={tmp_path}/otf.npy"
    small = ["--steps", "2", "--samples", "2", "--device", "cpu", "--out", str(tmp_path / "out")]
    kspace = str(make_fastmri_file(tmp_path / "a.h5", slices=2))
    operator = [f"--operator={qualified}Convolve", "--operator-args", otf]
    for command in [
        ["check", f"{qualified}Convolve", "--args", otf, "domain=[1, 32, 24]"],
        ["restore", str(tmp_path / "image.npy"), *operator, *own, *small],
        ["reconstruct", kspace, *own, *small],
        ["calibrate", kspace, "--accel", "2", "--center", "0.3", *own, *small],
    ]:
        assert main([*command, *plugin, "--dry-run"]) == 0, capsys.readouterr().err
        assert main([*command, *plugin]) == 0, capsys.readouterr().err
    assert "2 network calls" in capsys.readouterr().out
    config = tmp_path / "grid.yaml"
    config.write_text(
        f"inputs: [image.npy]\nprior: {qualified}shrink\ncalls: [2]\npictures: 0\nruntime: {{device: cpu}}\n"
        f"problems: {{p: {{operator: '{qualified}Convolve', sigma: .1, options: {{otf: otf.npy}}}}}}\n"
        f"methods: {{m: {{sampler: '{qualified}Same', solver: '{qualified}Plain'}}}}\n"
    )
    where = ["--data", str(tmp_path), "--out", str(tmp_path / "bench")]
    assert main(["benchmark", str(config), *plugin, *where, "--dry-run"]) == 0


def test_train_and_reconstruct_with_it(tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", images=rng.random((6, 32, 32)).astype(np.float32))
    config = tmp_path / "train.yaml"
    config.write_text(
        "name: mine\ndata: [set.npz]\nlength: {steps: 2}\nbatch: 2\ncrop: 16\n"
        "network: {widths: [4, 8], blocks: 1, embedding: 8}\n"
    )
    command = ["train", str(config), "--data-root", str(tmp_path), "--out", str(tmp_path / "weights")]
    assert main([*command, "--dry-run"]) == 0
    assert not (tmp_path / "weights").exists()
    assert main(command) == 0
    prior = tmp_path / "weights/mine.safetensors"
    assert str(prior) in capsys.readouterr().out
    file = make_fastmri_file(tmp_path / "a.h5", slices=1)
    again = ["reconstruct", str(file), "--prior", str(prior), "--steps", "1", "--samples", "1", "--out"]
    assert main([*again, str(tmp_path / "out")]) == 0
    config.write_text(config.read_text() + "bacth: 3\n")
    assert main(command) == 2
    assert '"batch"' in capsys.readouterr().err


def test_a_fault_of_the_program_is_named_as_one(capsys, monkeypatch):
    def broken(args):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(HANDLERS, "list", broken)
    assert main(["list"]) == 2
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "--debug" in said and "Traceback" not in said


def test_bench_names(capsys):
    assert main(["bench", "operators", "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == ["multicoil", "super-resolution", "ct"]
    assert main(["bench", "opertors"]) == 2
    assert '"operators"' in capsys.readouterr().err


def test_bench_measures_in_turns():
    from recon.speed.run import interleaved

    order = []
    times = interleaved(lambda: order.append("a"), lambda: order.append("b"), repetitions=2)
    assert order == ["a", "b"] * 3 and len(times) == 2 and torch.tensor(times).min() >= 0


def test_bench_solvers_has_a_line_a_solver():
    from recon.speed.solvers import StepCost, solver_costs

    *costs, draw = solver_costs(1, size=8)
    assert [row.name for row in costs if isinstance(row, StepCost)] == list(SOLVERS)
    said = dict(zip(SOLVERS, map(str, costs), strict=True))
    assert (
        said["heun"].endswith("2 calls per step (no bar)")
        and "1 call per step (bar 0.5 ms: " in said["euler"]
    )
    assert "noise" in str(draw)
    slow = StepCost("euler", 1, {"complex64": 0.6, "float32": 0.1})
    assert slow.held is False and str(slow).endswith("missed)")
