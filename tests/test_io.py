"""Every format: what is written is read back, sizes and crops are the header's, results can be continued."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_kspace import coil_maps, crop, ifft2c, make_fastmri_file, make_kspace
from PIL import Image

from recon import io, metrics
from recon.errors import ConfigError, InputError, OutputError, nearest, unknown
from recon.io.acquisition import MaskChoice
from recon.io.images import read_image

quick = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
sizes = st.integers(1, 13)
CONFIG = {"sampler": "dds", "solver": "dpm++2m", "steps": 20, "mask": {"accel": 4}}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def assert_reads(path: Path, wanted: np.ndarray) -> None:
    """Whether the file at ``path`` gives k-space ``wanted`` (slices, coils, H, W)."""
    file = io.open_kspace(path)
    assert file.shape == wanted.shape
    assert file.crop == wanted.shape[2:]
    for i in range(file.slices):
        got = file.read_slice(i)
        assert got.kspace.dtype == torch.complex64
        assert got.kspace.is_contiguous()
        np.testing.assert_array_equal(got.kspace.numpy(), wanted[i])


@quick
@given(sizes, sizes, sizes, sizes)
def test_formats_with_slices_and_coils(tmp_path, slices, coils, H, W):
    kspace = noise(slices, coils, H, W)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["kspace"] = kspace
    np.save(tmp_path / "x.npy", kspace)
    np.savez_compressed(tmp_path / "x.npz", ksp=kspace)
    np.savez(tmp_path / "fortran.npz", kspace=np.asfortranarray(kspace))
    for name in ("x.h5", "x.npy", "x.npz", "fortran.npz"):
        assert_reads(tmp_path / name, kspace)


@quick
@given(sizes, sizes, sizes)
def test_formats_with_three_axes(tmp_path, first, H, W):
    kspace = noise(first, H, W)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["kspace"] = kspace
    np.save(tmp_path / "x.npy", kspace)
    np.savez(tmp_path / "x.npz", kspace=kspace)
    assert_reads(tmp_path / "x.h5", kspace[:, None])
    assert_reads(tmp_path / "x.npy", kspace[None])
    assert_reads(tmp_path / "x.npz", kspace[None])


@quick
@given(st.integers(2, 9), sizes, sizes, sizes, st.sampled_from([2, 13]))
def test_cfl(tmp_path, H, W, slices, coils, axis):
    kspace = noise(slices, coils, H, W)
    shape = [H, W, 1, coils] + [1] * 12
    shape[axis] = slices
    array = np.transpose(kspace, (2, 3, 0, 1) if axis == 2 else (2, 3, 1, 0)).reshape(shape)
    path = io.write_cfl(tmp_path / "x", array)
    np.testing.assert_array_equal(io.read_cfl(path), array)
    for name in ("x.cfl", "x.hdr", "x"):
        assert_reads(tmp_path / name, kspace)
    assert not list(tmp_path.glob("*.part"))


def test_cfl_of_one_readout_sample(tmp_path):
    kspace = noise(1, 3, 7, 5)
    io.write_cfl(tmp_path / "x", kspace[0].transpose(1, 2, 0)[None])
    assert_reads(tmp_path / "x.cfl", kspace)


def test_cfl_header_with_comments(tmp_path):
    kspace = noise(1, 2, 4, 3)
    io.write_cfl(tmp_path / "x", kspace[0].transpose(1, 2, 0)[:, :, None])
    text = "# Dimensions\n4 3 1 2 1 \n# Command\nphantom -k x\n# Files\n >x\n# Creator\nBART v0.8.00\n"
    (tmp_path / "x.hdr").write_text(text)
    assert_reads(tmp_path / "x.cfl", kspace)


def test_complex128_and_named_parts(tmp_path):
    kspace = noise(1, 2, 4, 3)
    np.save(tmp_path / "double.npy", kspace.astype(np.complex128))
    with h5py.File(tmp_path / "pairs.h5", "w") as file:
        file["kspace"] = kspace.view(np.dtype([("real", "<f4"), ("imag", "<f4")]))
    assert_reads(tmp_path / "double.npy", kspace)
    assert_reads(tmp_path / "pairs.h5", kspace)


@pytest.mark.parametrize("single", [False, True])
def test_oversampled_readout_is_cropped_to_the_header(tmp_path, single):
    path = make_fastmri_file(tmp_path / "x.h5", 3, 4, 64, 25, recon=(32, 25), single_coil=single)
    file = io.open_kspace(path)
    assert (file.shape, file.crop, file.oversampling) == ((3, 1 if single else 4, 64, 25), (32, 25), 2.0)
    assert file.reference == ("reconstruction_esc" if single else "reconstruction_rss")
    assert file.attrs["acquisition"] == "AXT2"
    assert isinstance(file.attrs["max"], float)
    part = file.read_slice(1)
    full = (
        io.center_crop(torch.from_numpy(ifft2c(part.kspace.numpy())), file.crop).abs().square().sum(0).sqrt()
    )
    torch.testing.assert_close(full.float(), part.reference, rtol=1e-4, atol=1e-9)
    lean = torch.from_numpy(ifft2c(io.crop_readout(part.kspace, 32).numpy())).abs().square().sum(0).sqrt()
    torch.testing.assert_close(lean.float(), part.reference, rtol=1e-4, atol=1e-9)


@quick
@given(st.integers(2, 20), st.integers(1, 9), st.data())
def test_crop_readout_is_the_crop_of_the_image(H, W, data):
    h = data.draw(st.integers(1, H))
    kspace = noise(2, H, W)
    got = ifft2c(io.crop_readout(torch.from_numpy(kspace), h).numpy())
    np.testing.assert_allclose(got, crop(ifft2c(kspace), h, W), atol=1e-5)


def test_header_larger_than_kspace_keeps_what_there_is(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5", 1, 2, 40, 13, recon=(20, 20), with_target=False)
    assert io.open_kspace(path).crop == (20, 13)


def test_zero_padding_is_known_and_seen(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5", 2, 3, 16, 21, acquired=(4, 18))
    file = io.open_kspace(path)
    assert file.acquired == (4, 18)
    found = io.survey(file)
    assert found.sampled.any(0).nonzero().flatten().tolist() == list(range(4, 18))


@pytest.mark.parametrize("kind", [bool, np.float32, np.int8])
def test_test_files_bring_their_mask(tmp_path, kind):
    mask = np.arange(24) % 4 == 0
    path = make_fastmri_file(tmp_path / "x.h5", with_mask=mask.astype(kind))
    file = io.open_kspace(path)
    assert file.reference is None
    assert file.read_slice(0).mask.tolist() == mask.tolist()
    assert io.read_mask(path, file).dtype == torch.bool


def test_file_without_header(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5", 1, 2, 31, 17, with_header=False, with_target=False)
    assert io.open_kspace(path).crop == (31, 17)
    path = make_fastmri_file(tmp_path / "y.h5", 1, 2, 32, 17, recon=(16, 17), with_header=False)
    file = io.open_kspace(path)
    assert file.crop == (16, 17)
    assert file.read_slice(0).reference.shape == (16, 17)


def test_reference_of_another_size_is_noted_not_used(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        del file["reconstruction_rss"]
        file["reconstruction_rss"] = np.ones((2, 8, 8), np.float32)
    file = io.open_kspace(path)
    assert file.reference is None
    assert "reconstruction_rss" in file.notes[0]


def test_a_survey_looks_at_every_slice_and_knows_the_data(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5", 3)
    file, seen = io.open_kspace(path), []
    found = io.survey(file, seen.append)
    assert seen == [1, 2, 3]
    assert found.peak == pytest.approx(max(float(file.read_slice(i).kspace.abs().max()) for i in range(3)))
    assert found.sampled.all()
    assert found.fingerprint == io.survey(file).fingerprint
    other = make_fastmri_file(tmp_path / "y.h5", 3, noise=1e-3)
    assert found.fingerprint != io.survey(io.open_kspace(other)).fingerprint


def test_maps_in_the_file_and_beside_it(tmp_path):
    path = make_fastmri_file(tmp_path / "x.h5", 2, 4, 32, 24, with_maps=True)
    file = io.open_kspace(path)
    maps = coil_maps(4, 32, 24)
    np.testing.assert_array_equal(file.read_slice(1).maps.numpy(), maps[None])
    two = np.stack([maps, maps.conj(), maps])
    np.save(tmp_path / "one.npy", maps)
    np.savez(tmp_path / "sets.npz", maps=two)
    io.write_cfl(tmp_path / "sets", two.transpose(2, 3, 1, 0)[:, :, None])
    np.testing.assert_array_equal(io.read_maps(tmp_path / "one.npy", file, 0).numpy(), maps[None])
    for name in ("sets.npz", "sets.cfl"):
        np.testing.assert_array_equal(io.read_maps(tmp_path / name, file, 1).numpy(), two)
    np.testing.assert_array_equal(io.read_maps(path, file, 0).numpy(), maps[None])


@quick
@given(st.integers(2, 9), st.integers(2, 9), st.booleans())
def test_masks_from_files(tmp_path, H, W, plane):
    np.save(tmp_path / "k.npy", noise(1, H, W))
    file = io.open_kspace(tmp_path / "k.npy")
    mask = np.random.default_rng(H).random((H, W) if plane else (W,)) < 0.5
    mask.flat[0] = True
    np.save(tmp_path / "m.npy", mask)
    np.savez(tmp_path / "m.npz", mask=mask.astype(np.uint8))
    io.write_cfl(tmp_path / "c", mask.reshape(H if plane else 1, W))
    for name in ("m.npy", "m.npz", "c.cfl"):
        np.testing.assert_array_equal(io.read_mask(tmp_path / name, file).numpy(), mask)


def test_content_names_a_file_of_unknown_suffix(tmp_path):
    kspace = noise(2, 3, 5, 4)
    np.save(tmp_path / "x.npy", kspace)
    os.rename(tmp_path / "x.npy", tmp_path / "scan.dat")
    assert_reads(tmp_path / "scan.dat", kspace)


def test_importing_io_is_light():
    """Pictures import matplotlib when one is drawn; nothing here imports deepinv or scikit-image."""
    for source in Path(io.__file__).parent.glob("*.py"):
        names = [
            line.split()[1]
            for line in source.read_text().splitlines()
            if line.startswith(("import ", "from "))
        ]
        assert not {name.split(".")[0] for name in names} & {"deepinv", "matplotlib", "skimage", "scipy"}


# results


def slice_of(seed: int, size=(9, 7), samples: int = 3) -> dict:
    draws = torch.from_numpy(noise(samples, *size, seed=seed)) * 1e-4
    return dict(mean=draws.mean(0), samples=draws, std=draws.abs().std(0), zero_filled=draws[0])


def writer(path: Path, slices: int = 3, **options) -> io.ResultWriter:
    given = dict(slices=slices, size=(9, 7), samples=3, config=CONFIG, seed=5, source="abc") | options
    return io.ResultWriter(path, **given)


def test_result_round_trip(tmp_path):
    path = tmp_path / "out" / "x.h5"
    mask = torch.arange(7) % 2 == 0
    with writer(path, mask=mask, scores=metrics.CONVENTIONS, attrs={"acquisition": "AXT2"}) as out:
        assert out.part.name == "x.h5.part"
        for i in out.todo:
            given = slice_of(i)
            found = metrics.scores(given["mean"], given["samples"][0])
            out.write(i, **given, scores=found)
        assert out.finish() == path
    assert sorted(p.name for p in path.parent.iterdir()) == ["x.h5"]
    result = io.read_result(path, samples=True)
    for i in range(3):
        given = slice_of(i)
        np.testing.assert_array_equal(result.reconstruction[i], given["mean"].abs().numpy())
        np.testing.assert_array_equal(result.samples[i], given["samples"].numpy())
        np.testing.assert_array_equal(result.std[i], given["std"].numpy())
        np.testing.assert_array_equal(result.zero_filled[i], given["zero_filled"].abs().numpy())
    assert (result.config, result.seed, result.attrs["acquisition"]) == (CONFIG, 5, "AXT2")
    assert result.mask.tolist() == mask.tolist()
    assert result.conventions == metrics.CONVENTIONS
    assert np.isfinite(result.scores["scaled_psnr"]).all()
    assert result.versions["torch"].startswith(torch.__version__.split("+")[0])


def test_fastmri_evaluation_reads_the_result(tmp_path):
    source = make_fastmri_file(tmp_path / "x.h5", 2, 3, 48, 20, recon=(24, 20))
    file = io.open_kspace(source)
    (path,) = io.result_paths([source], tmp_path / "out")
    with io.ResultWriter(path, slices=2, size=file.crop, samples=1, config={}, seed=0) as out:
        for i in range(2):
            image = torch.complex(file.read_slice(i).reference * 0.9, torch.zeros(file.crop))
            out.write(i, mean=image, samples=image[None], zero_filled=image)
        out.finish()
    # as fastMRI's evaluate.py does: both cropped to squares of the target's width, a volume at a time
    with h5py.File(source) as target, h5py.File(path) as recons:
        truth, image = target["reconstruction_rss"][()], recons["reconstruction"][()]
        assert recons["reconstruction"].dtype == np.float32
        assert np.isnan(recons["std"]).all()
        assert json.loads(recons["config"][()]) == {}
    side = truth.shape[-1]
    truth, image = crop(truth, side, side), crop(image, side, side)
    assert np.linalg.norm(truth - image) ** 2 / np.linalg.norm(truth) ** 2 == pytest.approx(0.01, rel=1e-4)
    assert float(metrics.nmse(image, truth)) == pytest.approx(0.01, rel=1e-4)


def test_interrupted_result_is_continued(tmp_path):
    path = tmp_path / "x.h5"
    with pytest.raises(KeyboardInterrupt), writer(path) as out:
        out.write(1, **slice_of(1))
        raise KeyboardInterrupt
    assert not path.exists()
    assert np.isnan(io.read_result(out.part).reconstruction[0]).all()
    with writer(path) as out:
        assert out.finished == [False, True, False]
        with pytest.raises(OutputError, match="Slices \\[0, 2\\]"):
            out.finish()
        for i in out.todo:
            out.write(i, **slice_of(i))
        out.finish()
    assert io.is_done(path, CONFIG, "abc")
    np.testing.assert_array_equal(io.read_result(path).reconstruction[1], slice_of(1)["mean"].abs().numpy())
    with pytest.raises(OutputError, match="done already"):
        writer(path)


@contextmanager
def another_process(work: Callable[[], object]) -> Iterator[int]:
    """A process that did ``work`` and stands still; it is killed, as a scheduler kills, at the end."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = work()  # open files stay open
        os.write(tell, b"x")
        signal.pause()
        del held
    try:
        os.close(tell)
        assert os.read(told, 1) == b"x"
        yield pid
    finally:
        os.close(told)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_killed_run_leaves_its_finished_slices(tmp_path):
    path = tmp_path / "x.h5"
    given = [slice_of(i) for i in range(3)]

    def work():
        out = writer(path)
        out.write(2, **given[2])
        out._file["samples"][0] = 7  # in the middle of the next slice
        return out

    with another_process(work), pytest.raises(OutputError, match="another run is writing it"):
        writer(path)
    with writer(path) as out:
        assert out.todo == [0, 1]
        for i in out.todo:
            out.write(i, **given[i])
        out.finish()
    result = io.read_result(path, samples=True)
    for i in range(3):
        np.testing.assert_array_equal(result.samples[i], given[i]["samples"].numpy())


def test_other_settings_are_refused_unless_overwritten(tmp_path):
    path = tmp_path / "x.h5"
    writer(path).close()
    other = CONFIG | {"mask": {"accel": 8}}
    with pytest.raises(OutputError, match="mask.accel was 4 and is now 8") as caught:
        writer(path, config=other)
    assert "--overwrite" in caught.value.do
    with pytest.raises(OutputError, match="the data are not"):
        writer(path, source="other")
    with writer(path, config=other, overwrite=True) as out:
        for i in out.todo:
            out.write(i, **slice_of(i))
        out.finish()
    with pytest.raises(OutputError, match="other settings"):
        io.is_done(path, CONFIG, "abc")
    assert not io.is_done(path, CONFIG, "abc", overwrite=True)


def test_inputs_that_share_a_result_are_found(tmp_path):
    assert io.result_paths(["a/x.h5", "y.cfl"], "out") == [Path("out/x.h5"), Path("out/y.h5")]
    with pytest.raises(OutputError, match="a/x.h5 and b/x.npy"):
        io.result_paths(["a/x.h5", "b/x.npy"], "out")
    with pytest.raises(OutputError, match="would overwrite"):
        io.result_paths([tmp_path / "x.h5"], tmp_path)


# pictures


def test_panel_shows_each_pixel_as_it_is(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.random((250, 181)) * 3e-4
    path = io.save_panel(tmp_path / "new" / "x.png", truth / 2, truth, truth / 9, truth, caption="slice 0")
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]
    pixels = np.asarray(Image.open(path).convert("L")).astype(float)
    wanted = np.clip(255 * truth / np.percentile(truth, 99.5), 0, 255)
    # the reference is the third tile; it stands somewhere in the picture, unscaled
    width = wanted.shape[1]
    left = 14 + 2 * (width + 14)
    column = pixels[:, left]
    top = next(t for t in range(len(column) - 249) if np.abs(column[t : t + 250] - wanted[:, 0]).max() <= 2)
    assert np.abs(pixels[top : top + 250, left : left + width] - wanted).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (33, 17)])
def test_panel_of_any_size_without_extras(tmp_path, size):
    image = torch.from_numpy(noise(*size))
    io.save_panel(tmp_path / "x.png", image, image, torch.full(size, float("nan")))
    assert Image.open(tmp_path / "x.png").size[0] < 800
    io.save_panel(tmp_path / "x.png", image * 0, image * 0)


# names


def test_names_answer_with_the_nearest():
    assert nearest("dppm", ["ddpm", "heun"]) == 'Did you mean "ddpm"?'
    assert nearest("zzz", ["b", "a"]) == "Known names: a, b."
    error = unknown("solver", "huen", ["ddpm", "heun"])
    assert isinstance(error, ConfigError)
    assert str(error).splitlines() == [
        'There is no solver named "huen".',
        "Known: ddpm, heun.",
        'Did you mean "heun"?',
    ]


# real data


@pytest.mark.parametrize("name", ["real_brain_mprage_4ch.h5", "real_brain_8ch.h5"])
def test_real_files_agree_with_their_reference(shared_data, name):
    file = io.open_kspace(shared_data / "mri" / "kspace" / name)
    part = file.read_slice(0)
    image = torch.from_numpy(ifft2c(part.kspace.numpy())).abs().square().sum(0).sqrt().float()
    assert (io.center_crop(image, file.crop) - part.reference).abs().max() < 1e-5 * part.reference.max()
    lines = io.survey(file).sampled.any(0).nonzero().flatten()
    assert (int(lines[0]), int(lines[-1]) + 1) == file.acquired


def test_real_npz_brings_its_poisson_mask(shared_data):
    file = io.open_kspace(shared_data / "mri" / "kspace" / "real_brain_8ch_poisson.npz")
    part = file.read_slice(0)
    assert part.kspace.shape == (8, 230, 180)
    torch.testing.assert_close(io.survey(file).sampled, part.mask)
    with pytest.raises(InputError, match="no slice 1"):
        file.read_slice(1)


def test_made_kspace_is_what_its_reference_says(tmp_path):
    assert make_kspace(1, 2, 8, 6).shape == (1, 2, 8, 6)
    file = io.open_kspace(make_fastmri_file(tmp_path / "x.h5", scale=1e-4))
    assert 0.5e-4 < float(file.read_slice(0).reference.max()) < 1.5e-4


# files as people have them


def swapped(array: np.ndarray) -> np.ndarray:
    """The same numbers in the byte order that this machine does not use."""
    return array.astype(array.dtype.newbyteorder())


def test_either_byte_order_is_read(tmp_path):
    """k-space, masks, maps, pictures' arrays and options: npy, npz and HDF5, complex numbers and pairs."""
    kspace, maps, mask = noise(2, 3, 8, 6), coil_maps(3, 8, 6), np.arange(6) % 2 == 0
    np.save(tmp_path / "k.npy", swapped(kspace))
    np.savez(tmp_path / "k.npz", kspace=swapped(kspace))
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = swapped(kspace)
    pair = np.empty(kspace.shape, np.dtype([("real", kspace.real.dtype.newbyteorder()), ("imag", kspace.real.dtype.newbyteorder())]))  # fmt: skip
    pair["real"], pair["imag"] = kspace.real, kspace.imag
    with h5py.File(tmp_path / "pair.h5", "w") as file:
        file["kspace"] = pair
    np.save(tmp_path / "pair.npy", pair)
    for name in ("k.npy", "k.npz", "k.h5", "pair.h5", "pair.npy"):
        assert_reads(tmp_path / name, kspace)
    file = io.open_kspace(tmp_path / "k.npy")
    np.save(tmp_path / "mask.npy", swapped(mask.astype(np.float32)))
    np.testing.assert_array_equal(io.read_mask(tmp_path / "mask.npy", file).numpy(), mask)
    np.save(tmp_path / "maps.npy", swapped(maps))
    np.testing.assert_array_equal(io.read_maps(tmp_path / "maps.npy", file, 0).numpy(), maps[None])
    image = np.arange(12, dtype=">i2").reshape(3, 4)
    np.save(tmp_path / "image.npy", image)
    np.testing.assert_array_equal(io.read_array(tmp_path / "image.npy").numpy(), image.astype(np.int16))
    np.testing.assert_array_equal(read_image(tmp_path / "image.npy").numpy(), image.astype(np.float32))


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<u2", ">u4", "<i8", "u1", "?", "<c16", "<f2", "longdouble"])
def test_arrays_of_every_kind_of_number_are_tensors(tmp_path, dtype):
    array = np.asfortranarray(np.arange(12).reshape(3, 4) % 5).astype(dtype)
    np.save(tmp_path / "x.npy", array)
    found = io.read_array(tmp_path / "x.npy")
    np.testing.assert_array_equal(found.numpy(), array)
    assert float((found == 3).sum()) == (array == 3).sum()  # and torch computes with them
    np.save(tmp_path / "x.npy", array[0, 0])
    assert io.read_array(tmp_path / "x.npy").shape == ()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
def test_pictures_are_read_wherever_an_array_is(tmp_path, suffix):
    gray = np.random.default_rng(0).integers(0, 256, (8, 6)).astype(np.uint8)
    path = tmp_path / f"x{suffix}"
    Image.fromarray(gray).save(path)
    np.testing.assert_array_equal(io.read_array(path).numpy(), gray.astype(np.float32) / 255)
    assert read_image(path).shape == (8, 6) and read_image(path, measured=True).shape == (1, 1, 8, 6)
    mask = gray > 128
    for mode in ("L", "1", "RGB"):
        Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(path)
        np.testing.assert_array_equal(io.read_array(path).numpy(), mask)
        file = io.open_kspace(make_fastmri_file(tmp_path / "x.h5", H=8, W=6))
        np.testing.assert_array_equal(io.read_mask(path, file).numpy(), mask)
        assert MaskChoice(str(path)).is_file


def test_pictures_keep_their_depth(tmp_path):
    deep = np.arange(0, 60000, 5000, dtype=np.uint16).reshape(3, 4)
    for name in ("x.png", "x.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        np.testing.assert_allclose(io.read_array(tmp_path / name).numpy(), deep / 65535, rtol=1e-6)
    floats = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)
    Image.fromarray(floats).save(tmp_path / "f.tif")
    np.testing.assert_array_equal(io.read_array(tmp_path / "f.tif").numpy(), floats)


@pytest.mark.parametrize("group", ["data", "a/b"])
def test_arrays_in_the_only_group_that_has_kspace(tmp_path, group):
    kspace, mask = noise(2, 3, 8, 6), np.arange(6) % 2
    make_fastmri_file(tmp_path / "plain.h5", kspace=kspace * mask, with_mask=mask)
    with h5py.File(tmp_path / "plain.h5") as old, h5py.File(tmp_path / "x.h5", "w") as new:
        new.attrs["acquisition"] = "AXT2"
        for name in old:
            old.copy(name, new.require_group(group))
        new["other/mask"] = np.ones(6)  # of something else
        new[f"{group}/again"] = h5py.SoftLink(f"/{group}/kspace")
        new["round"] = new[group]
    assert_reads(tmp_path / "x.h5", kspace * mask)
    file = io.open_kspace(tmp_path / "x.h5")
    assert file.crop == (8, 6) and file.store.header() is not None and file.attrs["acquisition"] == "AXT2"
    np.testing.assert_array_equal(file.mask.numpy(), mask != 0)


def test_a_soft_link_within_the_file_is_followed(tmp_path):
    kspace = noise(2, 3, 8, 6)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["group/raw"] = kspace
        file["alias"] = h5py.SoftLink("group")
        file["kspace"] = h5py.SoftLink("/alias/raw")
    assert_reads(tmp_path / "x.h5", kspace)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["raw"] = kspace
        layout = h5py.VirtualLayout(kspace.shape, kspace.dtype)
        layout[:] = h5py.VirtualSource(file["raw"])
        file.create_virtual_dataset("kspace", layout)
    assert_reads(tmp_path / "v.h5", kspace)


def test_hidden_files_are_not_a_folders_content(tmp_path, monkeypatch):
    for name in ("b.h5", "A.H5", "._b.h5", ".hidden.h5", ".DS_Store", "c.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder.h5").mkdir()
    assert [path.name for path in io.files_in(tmp_path, [".h5", ".npy"])] == ["A.H5", "b.h5"]
    assert io.files_in(tmp_path / "folder.h5", [".h5"]) == []

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.listdir", refuse)
    for folder, said in ((tmp_path, "Permission denied"), (tmp_path / "none", ""), (tmp_path / "c.txt", "")):
        with pytest.raises(InputError, match="cannot be read") as caught:
            io.files_in(folder, [".h5"])
        assert said in str(caught.value)
