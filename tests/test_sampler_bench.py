"""What ``recon bench samplers`` counts and measures: the calls of a sampler are all of them, and made again as they were."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

from operators.mri import MRI
from recon.networks.precondition import Preconditioned
from recon.networks.unet import UNet
from recon.posteriors import POSTERIORS
from recon.priors import Prior, as_complex
from recon.problem import NEAR_STEPS, Problem
from recon.sampling import sample
from recon.speed.memory import SAMPLERS, memory_growth, peak_bytes
from recon.speed.replay import Recorded, noise_recorded, operators_recorded
from recon.speed.samplers import SETUPS, coils, cost


def small(width: int = 8) -> Prior:
    """A network with weights as they come, of complex images."""
    network = Preconditioned(UNet(2, (width, width), 1), 0.5, 0.01, 10.0).requires_grad_(False)
    return as_complex(Prior(network, of=network))


def problem(size: int = 16) -> Problem:
    A = MRI(torch.arange(size) % 2 == 0, coils(3, size))
    return Problem(A, A.forward(torch.ones(1, 1, size, size, dtype=torch.complex64)), 0.1)


def test_every_sampler_is_measured():
    assert set(POSTERIORS) < set(SETUPS)


def test_what_a_sampler_asks_is_counted_and_asked_again():
    """MMPS: at every step an image, three gradients of it, and four times A forward; the residual per step."""
    calls, gradients = [], []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            calls.append(len(x))
            return x / 2

        @staticmethod
        def backward(ctx, g):
            gradients.append(len(g))
            return g / 2

    prior = Recorded(Prior(lambda x, sigma: torch.view_as_complex(Seen.apply(torch.view_as_real(x)))))
    with operators_recorded(MRI) as asked, noise_recorded() as drawn:
        sample(problem(), prior, POSTERIORS["mmps"](prior, tol=0.0), "euler", steps=4, samples=2)
    assert len(calls) == len(prior.calls) == 4 and len(gradients) == sum(prior.vjps) == 4 * 3
    count: Counter[str] = Counter()
    for (name, *_), number in asked.counts.items():
        count[name] += number
    once = {"forward": 2, "adjoint": 2, "normal": NEAR_STEPS}  # y, A^H y, and the image near the data
    assert count == Counter({"forward": 4 * 4, "adjoint": 4 * 3, "normal": 4}) + Counter(once)
    assert sum(drawn.counts.values()) == 1  # the start
    prior.replay()
    assert len(calls) == 8 and len(gradients) == 24
    with operators_recorded(MRI) as twice:
        asked.replay()
    assert sum(twice.counts.values()) == 0  # bare: what was replaced is in place again, and not asked


def test_singular_coordinates_are_counted_and_so_are_new_operators():
    prior = Recorded(small())
    with operators_recorded(MRI) as asked:
        A = MRI(torch.arange(16) % 2 == 0, shape=(16, 16))
        sample(Problem(A, torch.ones(1, 1, 16, 16) * A.mask * (1 + 0j), 0.1), prior, "ddrm", "euler", steps=3)
        A.N.forward(torch.ones(1, 1, 16, 16, dtype=torch.complex64))
    assert {"coordinates", "image", "measured", "normal"} <= {name for name, *_ in asked.counts}


@pytest.mark.parametrize("name", ["dds", "ensemble of dds", "active dds", "ddrm"])
def test_a_line_a_sampler(name):
    line = cost(name, SETUPS[name], small(), 1, 32)
    assert line.run > 0 and line.network > 0 and line.operators > 0 and line.ratio > 0
    assert str(line).startswith(f"{name}, 32 x 32: ") and ("held" in str(line)) == line.held


def test_peak_memory_is_that_of_tensors():
    block = 2**20

    def run() -> None:
        first = torch.ones(block, dtype=torch.uint8)
        del first
        second, third = (torch.ones(2 * block, dtype=torch.uint8) for _ in range(2))
        del second, third

    assert peak_bytes(run) == 4 * block


def test_importing_the_measurements_leaves_the_environment_as_it_is():
    code = "import os; before = dict(os.environ); import recon.speed.run; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", code], check=True, env=clean())


def test_memory_grows_with_the_states_and_not_with_the_activations():
    lines = list(memory_growth(small(32), coils(2, 32)))
    assert len(lines) == len(SAMPLERS)
    for line in lines:
        assert line.held, str(line)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
@pytest.mark.parametrize("tuned", [False, True])
def test_memory_is_kept_where_the_environment_does_not_say_otherwise(tuned):
    code = (
        "import torch, resource\nfrom recon.runtime.allocation import keep_memory\nprint(keep_memory())\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): torch.ones(2**21)\nbefore = faults()\n"
        "for _ in range(10): torch.ones(2**21)\nprint(faults() - before)"
    )
    environment = {"MALLOC_TRIM_THRESHOLD_": "131072"} if tuned else {}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean() | environment
    )
    kept, count = done.stdout.split()
    assert kept == str(not tuned) and (int(count) < 2000) == (not tuned)  # 8 MiB are 2048 pages


def clean() -> dict[str, str]:
    """The environment without tuning of the C library, modules found as here."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"}
    return kept | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
