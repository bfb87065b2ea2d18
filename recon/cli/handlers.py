"""What each command does with its arguments: read settings, call the job, say where the results are.

Each handler imports what it needs, so that ``recon --help`` imports no torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, unknown
from .reporting import print_error

LIST_KINDS = ("operators", "samplers", "solvers", "priors", "masks")
RECIPE_FLAGS = ("sampler", "solver", "prior", "steps", "samples", "seed", "sets")
LAYOUT_FLAGS = ("fftshift", "axes", "matrix")
RUNTIME_FLAGS = ("device", "dtype", "compile", "chunk", "slices")
KSPACE_FLAGS = ("accel", "mask", "center", "maps", "sets", "whiten", "coils", *LAYOUT_FLAGS)
SCAN_FLAGS = ("views", "arc", "rows", "axis", "size", "pixel", "water", "volume", "radians", "stripes")


def flags_given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags that were given, by the names of the settings."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def settings_of(args: argparse.Namespace, *names: str) -> Any:
    """`Settings` of ``--config`` and of the flags ``names``, which take precedence; loads ``--plugin`` first."""
    from ..jobs.shared.settings import settle
    from ..registry.configuration import read_config

    load(args)
    flags = flags_given(args, *names) | {"mask_name": getattr(args, "mask", None)}
    return settle(read_config(args.config) if args.config else {}, flags)


def load(args: argparse.Namespace) -> None:
    """Import the file of ``--plugin``."""
    if args.plugin:
        from ..registry.plugins import load_plugin

        load_plugin(args.plugin)


def show(settings: Any) -> None:
    """Settings as YAML on standard output."""
    from dataclasses import asdict

    import yaml

    print(yaml.safe_dump(asdict(settings), sort_keys=False, default_flow_style=None).rstrip())


def run_version(args: argparse.Namespace) -> int:
    """Print the version."""
    from .. import __version__

    print(f"recon {__version__}")
    return 0


def run_demo(args: argparse.Namespace) -> int:
    """Reconstruct the input that ships."""
    from ..io.resources import demo_file
    from ..jobs.shared.settings import settle
    from ..registry.configuration import read_config

    args.files, args.overwrite = [str(demo_file())], True
    settings = settle(read_config("demo"), {})
    print("A synthetic brain, undersampled, is reconstructed with the prior that ships.")
    code = reconstruct_with(settings, args)
    if code == 0 and not args.dry_run:
        print(f"Next, your own: recon inspect FILE, then recon reconstruct FILE --out {args.out}")
    return code


def run_inspect(args: argparse.Namespace) -> int:
    """Print what each file holds; one that is not k-space does not stop the others."""
    from ..io.checks.layout import Layout
    from ..io.outcome import Outcome
    from ..jobs.inspect import inspect

    layout = Layout(**flags_given(args, *LAYOUT_FLAGS))
    outcome = Outcome(fail=lambda failure: print_error(failure.error, args.debug))
    for path in map(Path, args.files):
        try:
            print(inspect(path, layout))
            outcome.done.append(path)
        except Exception as error:
            outcome.failed(path, error)
    return outcome.exit_code


def run_reconstruct(args: argparse.Namespace) -> int:
    """Reconstruct k-space files, or sinograms."""
    from ..jobs.shared.scans import tomography_inputs

    sinograms = tomography_inputs(args.files)
    others = [path for path in args.files if not any(belongs(one, Path(path)) for one in sinograms)]
    flags = KSPACE_FLAGS if sinograms else (*SCAN_FLAGS, "sigma_y")
    if sinograms and others:
        raise ConfigError(
            f"{sinograms[0]} holds sinograms, {others[0]} does not.",
            "One command reconstructs files of one kind.",
            "Reconstruct them one after the other.",
        )
    if foreign := flags_given(args, *flags):
        name = {"sigma_y": "sigma"}.get(next(iter(foreign)), next(iter(foreign)))
        raise ConfigError(
            f"--{name} was given.",
            f"It is for {'k-space, and the files hold sinograms' if sinograms else 'sinograms, and the files hold none'}.",
            "Leave it out.",
        )
    if sinograms:
        return reconstruct_scans(sinograms, args)
    return reconstruct_with(
        settings_of(
            args, *RECIPE_FLAGS, *RUNTIME_FLAGS, *LAYOUT_FLAGS, "accel", "center", "maps", "whiten", "coils"
        ),
        args,
    )


def reconstruct_with(settings: Any, args: argparse.Namespace) -> int:
    """Reconstruct ``args.files``, and say where to look."""
    from ..io import picture_path
    from ..jobs.reconstruct import reconstruct

    if args.dry_run:
        show(settings)
    written = (
        {"formats": args.format or (), "dicom_template": args.dicom_template} if "format" in args else {}
    )
    spread = {"cluster": cluster_of(args), "plugin": args.plugin} if "engine" in args else {}
    outcome = reconstruct(args.files, settings, args.out, **how(args), **written, **spread)
    if outcome.fresh:
        results = ", ".join(map(str, outcome.fresh))
        print(f"Results: {results} (HDF5), with a picture of each slice beside them.")
        print(f"Look at: {picture_path(outcome.fresh[0], 0)}")
    return outcome.exit_code


def belongs(file: Path, given: Path) -> bool:
    """Whether a file is the one that was named, or lies in the folder that was."""
    return file == given or file.parent == given


def reconstruct_scans(files: list[Path], args: argparse.Namespace) -> int:
    """Reconstruct sinograms, and say where to look."""
    from ..io import picture_path
    from ..jobs.shared.scans import settle_tomography
    from ..jobs.tomography import reconstruct_sinograms
    from ..registry.configuration import read_config

    load(args)
    if cluster_of(args) is not None:
        raise ConfigError(
            "--engine dask was given.",
            "Sinograms are reconstructed here.",
            "Leave it out, or give each process a file.",
        )
    recipe = [name for name in RECIPE_FLAGS if name != "sets"]
    flags = flags_given(args, *recipe, *RUNTIME_FLAGS, *SCAN_FLAGS, "sigma_y")
    settings = settle_tomography(read_config(args.config) if args.config else {}, flags)
    if args.dry_run:
        show(settings)
    outcome = reconstruct_sinograms(
        files, settings, args.out, **how(args), formats=args.format or (), dicom_template=args.dicom_template
    )
    if outcome.fresh:
        results = ", ".join(map(str, outcome.fresh))
        print(f"Results: {results} (HDF5), with a picture of each slice beside them.")
        print(f"Look at: {picture_path(outcome.fresh[0], 0)}")
    return outcome.exit_code


def how(args: argparse.Namespace) -> dict[str, Any]:
    """How a job goes about its files: what may be written, what is read besides, who hears of failures."""
    return {
        "overwrite": args.overwrite,
        "dry_run": args.dry_run,
        "reads": files_read(args),
        "fail": lambda failure: print_error(failure.error, args.debug),
    }


def files_read(args: argparse.Namespace) -> list[str]:
    """The files that a command reads besides its inputs."""
    from ..registry.configuration import files_of_options

    named = [getattr(args, "config", None), getattr(args, "plugin", None)]
    return [name for name in named if name] + files_of_options(getattr(args, "operator_args", ()))


def run_restore(args: argparse.Namespace) -> int:
    """Restore pictures and arrays."""
    from ..jobs.restore import RestoreSettings, restore, restore_recipe
    from ..registry.configuration import construct, parse_options
    from ..runtime.runtime import Runtime

    load(args)
    job = RestoreSettings(
        args.operator,
        args.sigma,
        parse_options(args.operator_args),
        args.measured,
        tuple(args.size) if args.size else None,
        restore_recipe(flags_given(args, *RECIPE_FLAGS)),
        construct(Runtime, flags_given(args, *RUNTIME_FLAGS), "The runtime"),
    )
    outcome = restore(args.images, job, args.out, **how(args))
    if outcome.fresh:
        print(f"Results: {', '.join(map(str, outcome.fresh))}, with a picture of each beside it (.png).")
    return outcome.exit_code


def run_calibrate(args: argparse.Namespace) -> int:
    """Measure how often the intervals hold the truth."""
    from ..jobs.calibrate import LEVELS, calibrate, with_usual_mask

    runtime = [name for name in RUNTIME_FLAGS if name != "slices"]  # which here are the slices to measure
    settings = with_usual_mask(settings_of(args, *RECIPE_FLAGS, *runtime, *LAYOUT_FLAGS, "accel", "center"))
    if args.dry_run:
        show(settings)
    calibrate(
        args.inputs,
        settings,
        args.levels or LEVELS,
        args.slices,
        args.out,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        reads=files_read(args),
        say=print,
    )
    return 0


def run_benchmark(args: argparse.Namespace) -> int:
    """Run a grid of cells, and write its report."""
    from ..benchmark.run import benchmark
    from ..benchmark.specs import read_benchmark

    load(args)
    tally = benchmark(
        read_benchmark(args.config),
        args.out,
        data_of(args),
        only=args.only,
        part=parse_part(args.part),
        command=f"recon benchmark {args.config}",
        dry_run=args.dry_run,
        cluster=cluster_of(args),
        plugin=args.plugin,
        fail=lambda error: print_error(error, args.debug),
    )
    if not args.dry_run:
        print(f"{tally.done} cells done now, {tally.skipped} before, {len(tally.failed)} failed.")
    if tally.written:
        print(f"Written: {', '.join(map(str, tally.written))}")
        print(f"Look at: {Path(args.out) / 'index.html'}")
    return tally.exit_code


def data_of(args: argparse.Namespace) -> str | Path:
    """The folder that inputs are relative to: that of ``--data``, of the environment, or of the configuration."""
    beside = Path(args.config).parent if Path(args.config).is_file() else Path(".")
    return args.data or os.environ.get("RECON_SHARED_DATA") or beside


def run_tune(args: argparse.Namespace) -> int:
    """Search a sampler's options."""
    from ..tuning.run import PRESET, table, tune
    from ..tuning.settings import read_tuning

    load(args)
    found = tune(
        read_tuning(args.config, **flags_given(args, "sampler", "trials")),
        args.out,
        data_of(args),
        command=f"recon tune {args.config}",
        dry_run=args.dry_run,
    )
    if found.found is not None:
        print("\n".join(table(found)))
        print(f"Found: {found.found.in_words}")
        print(f"Preset: {Path(args.out) / PRESET}; for scans, and the comparison, see beside it.")
    return 0


def cluster_of(args: argparse.Namespace) -> Any:
    """The cluster of ``--engine dask``, None where the work is done here; raises `ConfigError`."""
    from ..runtime.cluster import ENGINES, Cluster

    if args.engine not in ENGINES:
        raise unknown("engine", args.engine, ENGINES)
    asked = [f"--{name}" for name in ("workers", "scheduler") if getattr(args, name) is not None]
    if args.engine == "dask":
        return Cluster(args.scheduler, args.workers)
    if asked:
        raise ConfigError(
            f"{asked[0]} was given without --engine dask.", "The work is done here.", "Add --engine dask."
        )
    return None


def parse_part(text: str) -> tuple[int, int]:
    """(2, 3) of "2/3"; raises `ConfigError`."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConfigError(f'--part is "{text}".', "It says which of how many.", "Write --part 1/2.")
    return int(index), int(count)


def run_train(args: argparse.Namespace) -> int:
    """Train a prior or an autoencoder."""
    from ..registry.configuration import read_config
    from ..training import make_training, train

    training = make_training(read_config(args.config) | flags_given(args, "data_root", "out", "init"))
    if args.dry_run:
        show(training)
        return 0
    for line in train(training, reads=[args.config]):
        print(line)
    return 0


def run_list(args: argparse.Namespace) -> int:
    """Print the names that there are, and what is known of each."""
    from ..jobs.list import listing

    print(listing([args.kind] if args.kind else LIST_KINDS))
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Measure an operator against the laws."""
    from ..jobs.check import check_operator
    from ..registry.configuration import parse_options
    from ..registry.operators import build_operator

    load(args)
    options = parse_options(args.args)
    print(
        repr(build_operator(args.object, options)) if args.dry_run else check_operator(args.object, options)
    )
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Measure speed, or quality on real data."""
    from ..speed.run import QUALITY, bench, measurements

    quality = [name for name in args.names if name in QUALITY]
    speed = [name for name in args.names if name not in quality]
    wanted = measurements(speed) if speed or not quality else []
    if args.dry_run:
        print("\n".join([*wanted, *quality]))
    elif wanted:
        bench(wanted, args.repetitions)
    code = 0
    for name in quality:
        if name == "curve":
            draw_curve(args)
        elif name == "denoising":
            compare_priors(args)
        elif name == "gold":
            compare_posteriors(args)
        elif name == "simulated":
            code = measure_simulated(args)
        elif name == "tomography":
            compare_tomograms(args)
        elif name == "trajectory":
            compare_along_trajectories(args)
        elif not args.dry_run:
            from ..benchmark.scans.comparison import run_comparison

            run_comparison(args.config, args.data, files=args.scans, cases=args.cases, methods=args.methods)
    return code


def draw_curve(args: argparse.Namespace) -> None:
    """Measure PSNR against network calls, and say where tables and figure are."""
    from ..benchmark.curve.run import run_curve

    made = run_curve(
        args.config,
        args.data,
        args.out or "examples",
        cases=args.cases,
        solvers=args.solvers,
        calls=args.calls,
        samples=args.samples,
        keep=args.keep,
        dry_run=args.dry_run,
    )
    if made:
        print(f"Written: {', '.join(map(str, made))}")


def compare_priors(args: argparse.Namespace) -> None:
    """Print denoising curves."""
    if not args.dry_run:
        from ..benchmark.denoising import compare_denoising

        compare_denoising(args.prior or ["brain-mri"], args.config, args.data, args.sigmas)


def compare_posteriors(args: argparse.Namespace) -> None:
    """Print how far samplers are from posteriors that are known."""
    if not args.dry_run:
        from ..benchmark.gold.table import run_gold

        run_gold(args.methods, args.cases)


def compare_along_trajectories(args: argparse.Namespace) -> None:
    """Print the table of simulated non-Cartesian scans."""
    if not args.dry_run:
        from ..benchmark.scans.trajectories import run_trajectories

        run_trajectories(
            args.config,
            args.data,
            images=args.images,
            cases=args.cases,
            methods=args.methods,
            count=args.slices,
            seed=args.seed,
        )


def compare_tomograms(args: argparse.Namespace) -> None:
    """Print tables of tomography."""
    from ..benchmark.tomography.table import XRAY_CASES, run_tomography

    if args.dry_run:
        print("\n".join(args.cases or XRAY_CASES))
        return
    run_tomography(
        args.data,
        cases=args.cases,
        methods=args.methods,
        prior=args.prior[0] if args.prior else None,
        size=args.size,
        slices=args.slices or 2,
        depth=args.depth,
        steps=args.steps,
        samples=args.samples,
        out=args.out,
    )


def measure_simulated(args: argparse.Namespace) -> int:
    """Reconstruct simulated scans by every method; 1 if some failed."""
    from ..benchmark.scans.run import run_simulated

    axes = flags_given(args, "coils", "matrix", "lines", "accel", "noise") | flags_given(args, "mask")
    failed = run_simulated(
        args.config,
        args.data,
        args.out or "recon_bench",
        images=args.images,
        axes=axes,
        count=args.cells,
        seed=args.seed,
        methods=args.methods,
        again=args.again,
        dry_run=args.dry_run,
    )
    return 1 if failed else 0


HANDLERS: dict[str, Callable[[argparse.Namespace], int]] = {
    "version": run_version,
    "demo": run_demo,
    "inspect": run_inspect,
    "reconstruct": run_reconstruct,
    "restore": run_restore,
    "calibrate": run_calibrate,
    "benchmark": run_benchmark,
    "tune": run_tune,
    "train": run_train,
    "list": run_list,
    "check": run_check,
    "bench": run_bench,
}
