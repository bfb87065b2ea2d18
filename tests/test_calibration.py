"""Intervals and their calibration: exact samples are true at every level, and what is off is told by how much."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch
from make_kspace import make_fastmri_file, objects

from recon import Result, metrics
from recon.calibration import (
    coverage_curve,
    distances,
    measure,
    rank_histogram,
    scale_for_coverage,
    sharpness,
    squared_z,
    summary,
)
from recon.cli import main
from recon.errors import ConfigError, InputError
from recon.intervals import calibrated_rank, enough, interval, ranked
from recon.io import ResultWriter, open_kspace, read_result
from recon.jobs.shared.reliability import verdict

LEVELS = (0.5, 0.8, 0.9, 0.95)
SIZE = (150, 200)


def exact(k: int, seed: int = 0, std: float = 0.1, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A truth of std .1 and k samples of ``std``, of one mean per pixel."""
    rng = np.random.default_rng(seed)
    centre = 5 + rng.random(SIZE)
    truth = centre + 0.1 * rng.standard_normal(SIZE)
    return truth, centre + std * rng.standard_normal((k, *SIZE))


def binomial(level: float, pixels: int) -> float:
    return 4 * np.sqrt(level * (1 - level) / pixels)


# --- intervals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 8, 19, 20, 33])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_the_interval_of_a_result_is_the_one_that_coverage_counts(k, level):
    truth, samples = exact(k)
    phase = torch.from_numpy(np.exp(1j * samples))
    result = Result(torch.from_numpy(samples)[None, :, None] * phase[None, :, None], 1)
    low, high = result.interval(level)
    assert low.shape == high.shape == (1, 1, *SIZE) and not low.is_complex()
    held = ((low[0, 0].numpy() <= truth) & (truth <= high[0, 0].numpy())).mean()
    assert held == pytest.approx(metrics.coverage(truth, samples, level=level).value, abs=1e-4)


def test_equal_weights_change_nothing_and_weights_count():
    truth, samples = exact(24)
    x = torch.from_numpy(samples)[None, :, None]
    plain, even = Result(x, 1), Result(x, 1, [], torch.full((1, 24), -3.0, dtype=torch.float64))
    for a, b in zip(plain.interval(), even.interval(), strict=True):
        torch.testing.assert_close(a, b)
    w = torch.zeros(1, 24, dtype=torch.float64)
    w[0, 12:] = -torch.inf  # 12 particles count: below 19, so the normal law of 12 samples
    for a, b in zip(Result(x, 1, [], w).interval(), Result(x[:, :12], 1).interval(), strict=True):
        torch.testing.assert_close(a, b)
    weights = np.r_[np.ones(12), np.zeros(12)] / 12
    assert (
        metrics.coverage(truth, samples, weights=weights).value == metrics.coverage(truth, samples[:12]).value
    )


EVERY = (*range(2, 12), *range(13, 24, 2), 19, 20, 28, 32, 38, 39, 45, 64, 100, 128, 199, 256)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_intervals_of_exact_draws_hold_their_level(level):
    """The share of all further draws between the ends, of 2 to 256 normal draws: off by .5 % at most."""
    drawn = torch.Generator().manual_seed(1)
    for k in EVERY:
        draws = torch.randn(k, 300000 // k, generator=drawn, dtype=torch.float64)
        low, high = interval(draws, level)
        held = (torch.special.ndtr(high) - torch.special.ndtr(low)).mean()
        assert float(held) == pytest.approx(level, abs=0.005), (k, level)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [32, 64, 128])
def test_intervals_of_weighted_draws_hold_their_level(count, level):
    """Draws of any weights: their effective number says how far out the ends lie."""
    drawn = torch.Generator().manual_seed(count)
    held = []
    for _ in range(60):
        w = torch.rand(count, generator=drawn, dtype=torch.float64).square()
        draws = torch.randn(count, 400, generator=drawn, dtype=torch.float64)
        low, high = interval(draws, level, w / w.sum())
        held.append(float((torch.special.ndtr(high) - torch.special.ndtr(low)).mean()))
    assert np.mean(held) == pytest.approx(level, abs=0.005)


def test_quantiles_are_used_where_a_sample_lies_beyond_each_end():
    for level, first in ((0.5, 3), (0.8, 9), (0.9, 19), (0.95, 39), (0.99, 199)):
        assert enough(first, level) and not enough(first - 1, level)
        assert calibrated_rank(first, level) == 1  # the least and the largest, whatever the law
    uniform = torch.rand(19, 20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = interval(uniform)
    assert torch.equal(low, uniform.amin(0)) and torch.equal(high, uniform.amax(0))
    for k, level in ((20, 0.9), (33, 0.9), (5, 0.5), (250, 0.95)):
        assert 0 <= calibrated_rank(k, level) - (k + 1) * (1 - level) / 2 < 0.2


def test_ranked_values_are_numpys_quantiles_and_forget_what_weighs_nothing():
    values = np.random.default_rng(0).standard_normal((21, 5, 4))
    x, ranks = torch.from_numpy(values), (1.1, 11.0, 16.94)
    points = np.divide(ranks, 22)
    wanted = np.quantile(values, points, axis=0, method="weibull")
    np.testing.assert_allclose(ranked(x, ranks), wanted, atol=1e-12)
    w = torch.tensor([0.0] + [0.05] * 20, dtype=torch.float64)
    torch.testing.assert_close(ranked(x, ranks, w), ranked(x[1:], ranks))


def test_an_interval_needs_two_samples_and_a_level_between_0_and_1():
    x = torch.rand(2, 3, 1, 4, 4, dtype=torch.float64)
    assert Result(x[:, :1], 1).interval() is None
    for level in (0, 1, -0.1, 90, "most"):
        with pytest.raises(ConfigError, match="level"):
            Result(x, 1).interval(level)
    one = torch.tensor([[0.0, -1e9, -1e9]] * 2, dtype=torch.float64)
    low, high = Result(x, 1, [], one).interval()  # one particle says nothing of the others
    assert torch.isinf(low).all() and torch.isinf(high).all()


def test_only_magnitudes_are_cut_at_0():
    x = torch.tensor([[0.1, 2.0], [1.5, 0.0]], dtype=torch.float64).view(1, 2, 1, 1, 2)
    real, cut = Result(x, 1).interval(), Result(x + 0j, 1).interval()
    assert (real[0] < 0).all() and (cut[0] == 0).all()
    torch.testing.assert_close(real[1], cut[1])


# --- calibration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [4, 16, 100])
def test_exact_samples_hold_every_level(k):
    truth, samples = exact(k)
    for level, held in zip(LEVELS, coverage_curve(truth, samples, LEVELS), strict=True):
        assert held == pytest.approx(level, abs=binomial(level, truth.size))


@pytest.mark.parametrize(("factor", "judged"), [(0.5, "too narrow"), (1.0, "true"), (2.0, "too wide")])
@pytest.mark.parametrize("k", [8, 16, 40])
def test_the_scale_is_what_the_std_is_off_by(k, factor, judged):
    """The truth has 1 / factor times the samples' spread about the same mean."""
    found, count = [], 2 if k == 40 else 4
    for seed in range(count):
        truth, samples = exact(k, seed)
        mean = samples.mean(0)
        found.append(measure(truth, mean + factor * (samples - mean), LEVELS))
    whole = summary(found, LEVELS)
    for row in whole.rows:
        assert row.scale == pytest.approx(1 / factor, rel=0.03)
    assert judged in verdict(whole) or factor == 1.0
    assert whole.squared_z == pytest.approx(whole.expected_z / factor**2, rel=0.1)
    assert whole.images == count and whole.pixels == count * SIZE[0] * SIZE[1]


def test_the_scale_makes_the_share_the_level_and_no_smaller_one_does():
    images = [exact(8, seed, std=0.07) for seed in range(2)]
    far = [distances(truth, samples, 0.9) for truth, samples in images]
    scale = scale_for_coverage(far, 0.9)
    share = [np.mean([(one <= c).mean() for one in far]) for c in (scale, 0.999 * scale)]
    assert share[0] >= 0.9 > share[1]
    for one, (truth, samples) in zip(far, images, strict=True):
        assert (one <= 1).mean() == metrics.coverage(truth, samples).value


def test_a_std_of_0_cannot_be_scaled():
    truth = np.ones(SIZE)
    truth[:75] = 2
    samples = np.ones((4, *SIZE))
    assert scale_for_coverage([distances(truth, samples, 0.9)], 0.9) == np.inf
    found = summary([measure(truth, samples, (0.9,))] * 2, (0.9,))
    assert "no std" in verdict(found)


@pytest.mark.parametrize("k", [3, 16, 40])
def test_ranks_of_exact_samples_are_even(k):
    truth, samples = exact(k)
    ranks = rank_histogram(truth, samples)
    assert ranks.shape == (k + 1,) and ranks.sum() == pytest.approx(1)
    np.testing.assert_allclose(ranks, 1 / (k + 1), atol=binomial(1 / (k + 1), truth.size))
    even = np.full(k, 1 / k)
    np.testing.assert_array_equal(rank_histogram(truth, samples, weights=even), ranks)
    assert squared_z(truth, samples, weights=even) == pytest.approx(squared_z(truth, samples))


def test_ranks_say_what_is_wrong():
    def shape(scale, shift=0.0):
        truth, samples = exact(9)
        mean = samples.mean(0)
        return summary([measure(truth + shift, mean + scale * (samples - mean), (0.9,))] * 2, (0.9,)).shape

    assert shape(1) == "even"
    assert shape(0.5).startswith("U-shaped") and shape(2).startswith("a hump")
    assert "above" in shape(1, 0.1) and "below" in shape(1, -0.1)


def test_weights_correct_samples_of_another_law():
    """Samples of twice the std, weighed by the ratio of the densities, are true again."""
    rng = np.random.default_rng(3)
    samples = 5 + 0.2 * rng.standard_normal(1500)
    weights = np.exp(-((samples - 5) ** 2) * (50 - 12.5))
    weights /= weights.sum()
    truth = (5 + 0.1 * rng.standard_normal(1200)).reshape(30, 40)
    field = np.broadcast_to(samples[:, None, None], (1500, 30, 40))
    for level, held in zip(
        (0.5, 0.9), coverage_curve(truth, field, (0.5, 0.9), weights=weights), strict=True
    ):
        assert held == pytest.approx(level, abs=0.06)
    assert metrics.coverage(truth, field, level=0.5).value > 0.7


def test_signed_images_are_calibrated_by_their_values():
    """Moved so far that all values are negative, or half of them: nothing changes but the width, relative to less."""
    truth, samples = exact(16)
    inside = np.ones(SIZE, bool)
    for moved in (5.5, 11.0):
        there, draws = truth - moved, samples - moved
        curve = coverage_curve(there, draws, LEVELS, inside)
        np.testing.assert_allclose(curve, coverage_curve(truth, samples, LEVELS, inside))
        np.testing.assert_allclose(
            rank_histogram(there, draws, inside), rank_histogram(truth, samples, inside), atol=1e-12
        )
        assert squared_z(there, draws, inside) == pytest.approx(squared_z(truth, samples, inside))
        np.testing.assert_allclose(
            distances(there, draws, 0.9, inside), distances(truth, samples, 0.9, inside), atol=1e-6
        )
        width = sharpness(there, draws, 0.9, inside) * np.abs(there).mean()
        assert width == pytest.approx(sharpness(truth, samples, 0.9, inside) * truth.mean())


def test_a_collapsed_ensemble_has_no_calibration():
    truth, samples = exact(4)
    with pytest.raises(InputError, match="count as 1.4"):
        measure(truth, samples, (0.9,), np.array([0.85, 0.05, 0.05, 0.05]))


def test_one_image_is_too_few():
    with pytest.raises(InputError, match="1 image"):
        summary([measure(*exact(4), (0.9,))], (0.9,))


# --- files and the command -------------------------------------------------------------------------------


def command(tiny, tmp_path, *arguments):
    options = ["--prior", tiny, "--steps", "2", "--samples", "3", "--device", "cpu"]
    return main(["calibrate", *map(str, arguments), *options, "--out", str(tmp_path / "out")])


@pytest.fixture
def stack(tmp_path):
    np.savez(tmp_path / "stack.npz", images=np.abs(objects(5, 32, 24, 32)))
    return tmp_path / "stack.npz"


def test_results_hold_the_interval_of_their_samples(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("recon.jobs.reconstruct.save_panel", lambda *a, **k: None)
    file = make_fastmri_file(tmp_path / "a.h5", recon=(24, 20), noise=0.01)
    arguments = ["--prior", tiny, "--steps", "2", "--samples", "3", "--accel", "2", "--center", ".3"]
    assert main(["reconstruct", str(file), *arguments, "--out", str(tmp_path / "out")]) == 0
    result = read_result(tmp_path / "out/a.h5", samples=True)
    assert result.interval is not None and result.samples is not None
    assert result.interval.shape == (2, 2, 24, 20) and result.interval.dtype == np.float32
    low, high = interval(torch.from_numpy(np.abs(result.samples[1])))
    np.testing.assert_allclose(result.interval[1, 0], low.clamp_min(0), rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(result.interval[1, 1], high, rtol=1e-4)
    with h5py.File(tmp_path / "out/a.h5") as stored:
        assert stored["interval"].attrs["level"] == 0.9
        assert "std sqrt(1 + 1/k)" in stored["interval"].attrs["method"]


def test_what_an_older_version_began_is_finished_without_an_interval(tmp_path):
    given = dict(slices=2, size=(4, 3), samples=2, config={}, seed=0)
    image = torch.ones(4, 3, dtype=torch.complex64)
    slice_ = dict(mean=image, samples=torch.stack([image] * 2), zero_filled=image, std=image.real)
    with ResultWriter(tmp_path / "a.h5", **given) as out:
        out.write(0, **slice_)
        del out._file["interval"]
    with ResultWriter(tmp_path / "a.h5", **given) as out:
        assert out.todo == [1]
        out.write(1, **slice_, interval=torch.zeros(2, 4, 3))
        out.finish()
    assert read_result(tmp_path / "a.h5").interval is None
    with ResultWriter(tmp_path / "b.h5", **given) as out:
        out.write(0, **slice_)
        assert np.isnan(out._file["interval"][0]).all()


def test_restored_pictures_hold_both_ends(tiny, tmp_path, capsys):
    np.save(tmp_path / "image.npy", np.abs(objects(1, 32, 24, 32)[0]))
    options = ["--operator", "mri", "--prior", tiny, "--steps", "2", "--device", "cpu"]
    for samples in ("1", "3"):
        out = tmp_path / samples
        assert (
            main(["restore", str(tmp_path / "image.npy"), *options, "--samples", samples, "--out", str(out)])
            == 0
        )
        with np.load(out / "image.npz") as found:
            low, high, draws = found["low"], found["high"], torch.from_numpy(found["samples"]).abs()
        if samples == "1":
            assert np.isnan(low).all() and np.isnan(high).all()
        else:
            wanted = interval(draws)
            np.testing.assert_allclose(low, wanted[0].clamp_min(0), rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(high, wanted[1], rtol=1e-3, atol=1e-5)
    capsys.readouterr()


def test_calibrate_images_and_kspace(tiny, tmp_path, stack, capsys):
    kspace = make_fastmri_file(tmp_path / "full.h5", 2, recon=(24, 24), noise=0.01)
    given = [stack, kspace, "--levels", ".9", ".5", "--slices", "2", "--accel", "2", "--center", ".3"]
    assert command(tiny, tmp_path, *given, "--dry-run") == 0
    assert "slices measured: 1, 3" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert command(tiny, tmp_path, *given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("90 % interval holds ") and "std x" in lines[-1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        f"calibration.{kind}" for kind in ("json", "md", "png")
    ]
    found = json.loads((tmp_path / "out/calibration.json").read_text())
    assert [row["level"] for row in found["rows"]] == [0.5, 0.9] and found["images"] == 4
    assert found["verdict"] == lines[-1] and len(found["ranks"]) == 4
    assert found["settings"]["recipe"]["steps"] == 2 and found["inputs"] == ["stack.npz", "full.h5"]
    assert lines[-1] in (tmp_path / "out/calibration.md").read_text()
    assert (tmp_path / "out/calibration.png").read_bytes().startswith(b"\x89PNG")
    assert command(tiny, tmp_path, *given) == 2  # it is there already
    assert "--overwrite" in capsys.readouterr().err


def test_the_reference_of_kspace_is_the_image_of_all_of_it(tiny, tmp_path, monkeypatch):
    file = make_fastmri_file(tmp_path / "full.h5", 2, recon=(24, 20))
    seen = []
    monkeypatch.setattr("recon.jobs.calibrate.measure", lambda reference, *rest: seen.append(reference) or measure(reference, *rest))  # fmt: skip
    assert command(tiny, tmp_path, file, "--accel", "2", "--center", ".3") == 0
    for index, reference in enumerate(seen):
        wanted = open_kspace(file).read_slice(index).reference
        torch.testing.assert_close(reference, wanted, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stack.npz", "--samples", "1"], "samples is 1"),
        (["stack.npz", "--levels", "90"], "level"),
        (["stack.npz", "--levels", "0"], "level"),
        (["stack.npz", "--slices", "1", "--accel", "2", "--center", ".3"], "one slice"),
        (["stack.npz", "--slices", "6"], "has 5 slices"),
        (["stack.npz", "--slices", "0"], "slices is 0"),
        (["stack.npz", "--mask", "all.npy"], "leaves nothing out"),
        (["under.h5"], "no reference"),
        (["zeros.h5"], "no reference"),
        (["empty.npz"], "not a magnitude image"),
        (["flat.npz"], "(slices, H, W)"),
        (["absent.npz"], "does not exist"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_a_network_call(
    tiny, tmp_path, stack, capsys, monkeypatch, arguments, said
):
    monkeypatch.setattr("recon.jobs.calibrate.measure_slices", lambda *a: pytest.fail("work began"))
    lines = np.arange(24) % 2 == 0
    lines[8:16] = True
    make_fastmri_file(tmp_path / "under.h5", with_mask=lines)
    make_fastmri_file(tmp_path / "zeros.h5", kspace=np.where(lines, 1.0 + 0j, 0) * np.ones((2, 4, 32, 24)))
    np.savez(tmp_path / "empty.npz", images=np.zeros((3, 8, 8)))
    np.savez(tmp_path / "flat.npz", images=np.ones((8, 8)))
    np.save(tmp_path / "all.npy", np.ones(24, bool))
    first, *rest = [str(tmp_path / one) if "." in one and one[0].isalpha() else one for one in arguments]
    command_line = [
        "calibrate",
        first,
        "--prior",
        tiny,
        "--out",
        str(tmp_path / "out"),
        *rest,
    ]
    assert main(command_line) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_mask_the_usual_one_is_taken(tiny, tmp_path, capsys):
    np.savez(tmp_path / "wide.npz", images=np.abs(objects(2, 32, 96, 32)))
    assert command(tiny, tmp_path, tmp_path / "wide.npz", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "name: random, accel: 4, center: 0.08" in out and "of 96 lines" in out
