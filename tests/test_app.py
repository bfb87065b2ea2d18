"""The reconstruction job: continued, never done twice, one failure stops no other, and what it writes."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from make_kspace import crop, ifft2c, make_fastmri_file, make_kspace
from make_prior import make_prior

from recon.errors import ConfigError, InputError, OutputError
from recon.io import open_kspace, read_result, survey
from recon.io.acquisition import MaskChoice, acquire
from recon.io.checks.layout import look
from recon.jobs import reconstruct as app
from recon.jobs.reconstruct import reconstruct
from recon.jobs.shared import slices
from recon.jobs.shared.settings import Settings, settle
from recon.registry.recipe import Recipe
from recon.runtime import runtime
from recon.runtime.runtime import Runtime

CPU = Runtime(device="cpu")


@pytest.fixture(autouse=True)
def no_pictures(request, monkeypatch):
    """Pictures cost half a second each, and one test looks at them."""
    if request.node.name != "test_what_is_written":
        monkeypatch.setattr(app, "save_panel", lambda *a, **k: None)


def settings(tiny, *, accel=2, center=0.3, **recipe):
    recipe = {"steps": 2, "samples": 2, **recipe}
    return Settings(Recipe(prior=tiny, **recipe), MaskChoice(accel=accel, center=center), runtime=CPU)


def counted(monkeypatch):
    """The slices that are sampled, as they are."""
    seen = []
    real = slices.reconstruct_slices

    def spy(*arguments, **options):
        seen.extend(one.index for one in arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr(slices, "reconstruct_slices", spy)
    return seen


def quiet(line):
    pass


def test_what_is_written(tiny, tmp_path):
    file = make_fastmri_file(tmp_path / "a.h5", recon=(24, 20), noise=0.01)
    outcome = reconstruct([file], settings(tiny), tmp_path / "out", say=quiet)
    assert (outcome.exit_code, outcome.fresh) == (0, [tmp_path / "out/a.h5"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.h5", "a_000.png", "a_001.png"]
    result = read_result(tmp_path / "out/a.h5", samples=True)
    assert result.reconstruction.shape == result.std.shape == (2, 24, 20)
    assert result.reconstruction.dtype == np.float32
    assert result.samples is not None and result.samples.shape == (2, 2, 24, 20)
    np.testing.assert_allclose(result.reconstruction, np.abs(result.samples.mean(1)), rtol=1e-5)
    np.testing.assert_allclose(result.std, np.abs(result.samples).std(1, ddof=1), rtol=1e-4, atol=1e-10)
    assert result.mask is not None and result.mask.shape == (24,) and result.mask.sum() == 12
    assert result.config["steps"] == 2 and result.config["mask"]["accel"] == 2
    assert np.isfinite(result.scores["scaled_psnr"]).all()
    with h5py.File(file) as source:
        reference = source["reconstruction_rss"][()]
    assert 0.1 < result.reconstruction.max() / reference.max() < 10  # the units of the file


def test_zero_filled_is_the_image_of_the_masked_kspace(tiny, tmp_path):
    file = make_fastmri_file(tmp_path / "a.h5", slices=1, recon=(16, 24))
    reconstruct([file], settings(tiny), tmp_path / "out", say=quiet)
    result = read_result(tmp_path / "out/a.h5")
    with h5py.File(file) as source:
        kspace = source["kspace"][()] * result.mask
    expected = np.sqrt((np.abs(crop(ifft2c(kspace), 16, 24)) ** 2).sum(1))
    np.testing.assert_allclose(result.zero_filled, expected, rtol=1e-4, atol=1e-9)


def test_an_interrupted_run_goes_on_and_gives_the_same(tiny, tmp_path, monkeypatch):
    files = [
        make_fastmri_file(tmp_path / f"{n}.h5", slices=3, noise=0.01, seed=i) for i, n in enumerate("ab")
    ]
    reconstruct(files, settings(tiny), tmp_path / "whole", say=quiet)
    real, calls = slices.reconstruct_slices, []

    def interrupted(*arguments, **options):
        calls.extend(one.index for one in arguments[0])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(slices, "reconstruct_slices", interrupted)
    outcome = reconstruct(files, settings(tiny), tmp_path / "out", say=quiet)
    assert outcome.exit_code == 130 and outcome.interrupted
    assert (tmp_path / "out/a.h5").exists() and not (tmp_path / "out/b.h5").exists()
    assert (tmp_path / "out/b.h5.part").exists()
    monkeypatch.setattr(slices, "reconstruct_slices", real)
    seen = counted(monkeypatch)
    outcome = reconstruct(files, settings(tiny), tmp_path / "out", say=quiet)
    assert (outcome.exit_code, seen) == (0, [1, 2])
    for name in ("a.h5", "b.h5"):
        a, b = (read_result(tmp_path / folder / name, samples=True) for folder in ("whole", "out"))
        np.testing.assert_array_equal(a.samples, b.samples)
    assert not list((tmp_path / "out").glob("*.part"))


def test_slices_together_give_what_they_give_alone(tiny, tmp_path):
    file = make_fastmri_file(tmp_path / "a.h5", slices=3, noise=0.01)
    one, three = settings(tiny), replace(settings(tiny), runtime=replace(CPU, slices=2))
    reconstruct([file], one, tmp_path / "one", say=quiet)
    reconstruct([file], three, tmp_path / "three", say=quiet)
    a, b = (read_result(tmp_path / folder / "a.h5", samples=True).samples for folder in ("one", "three"))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * np.abs(a).max())


def test_finished_files_are_not_done_again_and_other_settings_are_refused(tiny, tmp_path, monkeypatch):
    file = make_fastmri_file(tmp_path / "a.h5")
    reconstruct([file], settings(tiny), tmp_path / "out", say=quiet)
    seen = counted(monkeypatch)
    again = reconstruct([file], settings(tiny), tmp_path / "out", say=quiet)
    assert (again.exit_code, again.fresh, seen) == (0, [], [])
    other = reconstruct([file], settings(tiny, seed=1), tmp_path / "out", say=quiet)
    assert other.exit_code == 2 and "seed was 0 and is now 1" in str(other.failures[0].error)
    assert seen == []
    over = reconstruct([file], settings(tiny, seed=1), tmp_path / "out", overwrite=True, say=quiet)
    assert over.exit_code == 0 and seen == [0, 1]


def test_the_chunk_changes_no_setting_of_a_result(tiny, tmp_path):
    file = make_fastmri_file(tmp_path / "a.h5")
    first = settings(tiny)
    reconstruct([file], first, tmp_path / "out", say=quiet)
    chunked = Settings(first.recipe, first.mask, runtime=Runtime(device="cpu", chunk=1))
    assert reconstruct([file], chunked, tmp_path / "out", say=quiet).done == [tmp_path / "out/a.h5"]


def test_one_failure_stops_no_other(tiny, tmp_path):
    good = make_fastmri_file(tmp_path / "good.h5")
    (tmp_path / "bad.h5").write_bytes(b"nothing of use here")
    heard = []
    outcome = reconstruct([tmp_path], settings(tiny), tmp_path / "out", say=quiet, fail=heard.append)
    assert outcome.exit_code == 1 and outcome.done == [tmp_path / "out/good.h5"]
    assert [f.path.name for f in heard] == ["bad.h5"]
    assert good.exists()


def test_no_memory_says_what_to_do_and_leaves_nothing(tiny, tmp_path, monkeypatch):
    files = [make_fastmri_file(tmp_path / f"{n}.h5") for n in "ab"]
    real = slices.reconstruct_slices
    errors = [
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."
        ),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
    ]
    for error in errors:
        left = [error]

        def fails_once(*arguments, left=left, **options):
            if left:
                raise left.pop()
            return real(*arguments, **options)

        monkeypatch.setattr(slices, "reconstruct_slices", fails_once)
        out = tmp_path / type(error).__name__
        outcome = reconstruct(files, settings(tiny), out, say=quiet)
        assert outcome.exit_code == 1
        assert (
            "not enough memory" in str(outcome.failures[0].error)
            and "--chunk" in outcome.failures[0].error.do
        )
        assert not (out / "a.h5.part").exists() and (out / "b.h5").exists()


def test_everything_is_checked_before_anything_is_written(tiny, tmp_path, monkeypatch):
    make_fastmri_file(tmp_path / "a.h5")
    nan = make_kspace()
    nan[1, 0, 0, 0] = np.nan
    make_fastmri_file(tmp_path / "b.h5", kspace=nan)
    order = []
    monkeypatch.setattr(app, "look", lambda *a: (order.append("check"), look(*a))[1])
    monkeypatch.setattr(app, "ResultWriter", lambda *a, **k: order.append("write"))
    reconstruct([tmp_path], settings(tiny), tmp_path / "out", say=quiet)
    assert order == ["check", "check", "write"]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(tiny, tmp_path, monkeypatch):
    file = make_fastmri_file(tmp_path / "a.h5", recon=(16, 24))
    seen, said = counted(monkeypatch), []
    outcome = reconstruct([file], settings(tiny), tmp_path / "out", dry_run=True, say=said.append)
    assert outcome.exit_code == 0 and seen == [] and not (tmp_path / "out").exists()
    assert "12 of 24 lines" in said[0] and "4 network calls" in said[0] and "GiB" in said[0]


def test_two_inputs_with_one_name_are_refused(tiny, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        make_fastmri_file(tmp_path / folder / "a.h5")
    with pytest.raises(OutputError, match="both be written"):
        reconstruct([tmp_path / "x", tmp_path / "y"], settings(tiny), tmp_path / "out", say=quiet)
    twice = reconstruct([tmp_path / "x", tmp_path / "x/a.h5"], settings(tiny), tmp_path / "out", say=quiet)
    assert len(twice.done) == 1


def test_a_prior_of_real_images_is_refused(tmp_path):
    real = make_prior(tmp_path, "real", complex_images=False)
    with pytest.raises(ConfigError, match="real images"):
        reconstruct(
            [make_fastmri_file(tmp_path / "a.h5")], Settings(Recipe(prior=str(real)), runtime=CPU), tmp_path
        )


def test_maps_of_the_file_and_of_another_agree(tiny, tmp_path):
    with_maps = make_fastmri_file(tmp_path / "maps.h5", with_maps=True, noise=0.01)
    (tmp_path / "plain").mkdir()
    plain = make_fastmri_file(tmp_path / "plain/maps.h5", noise=0.01)
    base = settings(tiny)
    reconstruct([with_maps], base, tmp_path / "own", say=quiet)
    other = Settings(base.recipe, base.mask, str(with_maps), CPU)
    reconstruct([plain], other, tmp_path / "given", say=quiet)
    a, b = (read_result(tmp_path / folder / "maps.h5") for folder in ("own", "given"))
    np.testing.assert_allclose(a.reconstruction, b.reconstruction, rtol=1e-5)


# --- sampling --------------------------------------------------------------------------------------------


def looked_at(path, choice):
    file = open_kspace(path)
    return acquire(file, survey(file), choice)


def test_without_a_mask_all_measured_lines_are_used(tmp_path):
    full = looked_at(make_fastmri_file(tmp_path / "full.h5"), MaskChoice())
    assert full.mask.all() and not full.simulated and full.accel == 1
    padded = looked_at(make_fastmri_file(tmp_path / "padded.h5", acquired=(4, 20)), MaskChoice())
    assert padded.mask[0].sum() == 16 and not padded.simulated


def test_a_test_file_keeps_its_own_mask(tmp_path):
    mask = np.zeros(24, dtype=np.float32)
    mask[[1, 4, 9, 10, 11, 12, 13, 14, 15, 20]] = 1
    path = make_fastmri_file(tmp_path / "test.h5", with_mask=mask)
    assert looked_at(path, MaskChoice()).mask[0].tolist() == (mask > 0).tolist()
    with pytest.raises(InputError, match="undersampled already"):
        looked_at(path, MaskChoice(accel=4))


def test_a_file_with_holes_and_no_mask_is_seen_as_undersampled(tmp_path):
    kspace = make_kspace(slices=1, noise=0.01)
    kspace[..., ::3] = 0
    path = make_fastmri_file(tmp_path / "a.h5", kspace=kspace)
    found = looked_at(path, MaskChoice())
    assert found.whole_columns and not found.mask[0, ::3].any() and found.mask[0].sum() == 16
    with pytest.raises(InputError, match="undersampled already"):
        looked_at(path, MaskChoice(name="random"))


def test_a_made_mask_depends_on_the_name_of_the_file_only(tmp_path):
    choice = MaskChoice("random", 3, 0.2)
    (tmp_path / "x").mkdir()
    masks = [
        looked_at(make_fastmri_file(tmp_path / name, noise=noise), choice).mask
        for name, noise in (("a.h5", 0.0), ("x/a.h5", 0.1), ("b.h5", 0.0))
    ]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_a_mask_on_a_padded_file_counts_the_lines_that_were_measured(tmp_path):
    found = looked_at(make_fastmri_file(tmp_path / "a.h5", acquired=(4, 20)), MaskChoice(accel=2, center=0.3))
    assert not found.mask[0, :4].any() and found.simulated
    assert found.accel == 16 / int(found.mask[0].sum())
    assert "of 16 lines (8 more are zero padding)" in str(found)


def test_two_dimensional_masks(tmp_path):
    path = make_fastmri_file(tmp_path / "a.h5", slices=1)
    found = looked_at(path, MaskChoice("poisson", 4, 0.3))
    assert not found.whole_columns and 3 < found.accel < 5
    np.save(tmp_path / "m.npy", found.mask.numpy())
    assert torch.equal(looked_at(path, MaskChoice(str(tmp_path / "m.npy"))).mask, found.mask)


def test_a_2d_mask_keeps_the_oversampled_readout(tiny, tmp_path):
    file = make_fastmri_file(tmp_path / "a.h5", slices=1, recon=(24, 24))
    two = Settings(Recipe(prior=tiny, steps=2, samples=1), MaskChoice("poisson", 2, 0.4), runtime=CPU)
    assert reconstruct([file], two, tmp_path / "out", say=quiet).exit_code == 0
    assert read_result(tmp_path / "out/a.h5").reconstruction.shape == (1, 24, 24)


def test_single_coil_files(tiny, tmp_path):
    file = make_fastmri_file(tmp_path / "a.h5", single_coil=True, noise=0.01)
    assert reconstruct([file], settings(tiny), tmp_path / "out", say=quiet).exit_code == 0


# --- settings --------------------------------------------------------------------------------------------


def test_flags_go_before_the_configuration():
    config = {"steps": 7, "mask": {"name": "random", "accel": 8}, "runtime": {"chunk": 2}, "samples": 3}
    found = settle(config, {"steps": 9, "accel": 4.0, "device": "cpu", "mask_name": None})
    assert (found.recipe.steps, found.recipe.samples) == (9, 3)
    assert found.mask == MaskChoice("random", 4.0) and found.runtime == Runtime(
        device="cpu", dtype="auto", chunk=2
    )
    assert settle(config, {"mask_name": "poisson"}).mask == MaskChoice("poisson")
    assert settle({"mask": "poisson"}, {}).mask == MaskChoice("poisson")


@pytest.mark.parametrize("able", [True, False])
def test_the_precision_is_the_processors_and_is_said(tiny, tmp_path, monkeypatch, able):
    """bf16 where the processor multiplies it; a result of another precision is not gone on with."""
    monkeypatch.setattr(runtime, "multiplies_bf16", lambda: able)
    auto = replace(settings(tiny), runtime=Runtime(device="cpu", dtype="auto"))
    named = replace(auto, runtime=Runtime(device="cpu", dtype="bf16" if able else "float32"))
    file, said = make_fastmri_file(tmp_path / "a.h5", noise=0.01), []
    assert settle({}, {}).runtime.dtype == "auto"
    assert reconstruct([file], auto, tmp_path / "out", say=said.append).exit_code == 0
    assert f"network in {named.runtime.precision}" in said[0]
    assert read_result(tmp_path / "out/a.h5").config["dtype"] == named.runtime.precision
    assert reconstruct([file], named, tmp_path / "out", say=said.append).exit_code == 0
    assert "done already" in said[-1]
    monkeypatch.setattr(runtime, "multiplies_bf16", lambda: not able)
    assert reconstruct([file], auto, tmp_path / "out", say=quiet).exit_code == 2


@pytest.mark.parametrize(
    "config", [{"stepps": 1}, {"mask": {"acel": 4}}, {"runtime": {"chunks": 1}}, {"lenght": 1}]
)
def test_a_misspelt_key_is_refused(config):
    with pytest.raises(ConfigError, match="no setting"):
        settle(config, {})


def test_a_mask_file_has_its_own_acceleration():
    with pytest.raises(ConfigError, match="has its own"):
        MaskChoice("m.npy", accel=4)
