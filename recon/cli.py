"""The command line. Handlers import what they need, so that ``recon --help`` imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from .errors import ConfigError, ReconError, nearest, unknown

OUT = "recon_out"
LISTS = ("operators", "samplers", "solvers", "priors", "masks")
DESCRIPTION = "From measurements to images with their uncertainty, with diffusion priors."
EPILOG = "Start with: recon demo. Help on one command: recon COMMAND --help."


class Parser(argparse.ArgumentParser):
    """argparse, with errors that say what, why and what to do."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}.", do=f"See {self.prog} --help.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = "command" if action.dest == "command" else action.dest
            raise ConfigError(
                f'{self.prog}: there is no {kind} "{value}".',
                f"Known: {', '.join(map(str, action.choices))}.",
                nearest(value, map(str, action.choices)),
            )


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 all done, 1 some failed, 2 nothing usable, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in arguments
    try:
        args = parser().parse_args(arguments)
        return args.run(args)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        report(understood(error), debug)
        return 1 if type(error).__name__ == "LawBroken" else 2


def understood(error: Exception) -> Exception:
    """``error`` as one that says what to do."""
    if hasattr(error, "what") or type(error).__name__ == "LawBroken":
        return error
    from .io.outcome import is_out_of_memory, out_of_memory

    if is_out_of_memory(error):
        said: ReconError = out_of_memory("There is not enough memory.")
    else:
        said = ReconError(
            f"recon failed: {type(error).__name__}: {error}",
            "This is a fault of the program or of a plugin.",
            "Run again with --debug to see where.",
        )
    said.__cause__ = error
    return said


def report(error: BaseException, debug: bool) -> None:
    """What, why and what to do, a line each, to stderr; the traceback with ``--debug``."""
    if debug:
        traceback.print_exception(error)
    fields = [getattr(error, name, "") for name in ("what", "why", "do")]
    lines = [" ".join(line.split()) for line in fields if line] or [str(error)]
    print("recon: " + "\n  ".join(lines), file=sys.stderr)


# --- the arguments ---------------------------------------------------------------------------------------


def parser() -> Parser:
    top = Parser(prog="recon", description=DESCRIPTION, epilog=EPILOG)
    top.add_argument("--version", action="store_true", help="print the version and leave")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top.set_defaults(run=lambda args: version() if args.version else top.print_help() or 0)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    add_demo(commands)
    add_inspect(commands)
    add_reconstruct(commands)
    add_restore(commands)
    add_calibrate(commands)
    add_benchmark(commands)
    add_train(commands)
    add_list(commands)
    add_check(commands)
    add_bench(commands)
    return top


def version() -> int:
    from . import __version__

    print(f"recon {__version__}")
    return 0


def command(commands: Any, name: str, run: Any, help: str, dry_run: str = "") -> Parser:
    """A command that every one of them starts from: ``--debug`` and ``--dry-run``."""
    added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    added.set_defaults(run=run)
    added.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    added.add_argument("--dry-run", action="store_true", help=dry_run or "check the arguments and do nothing")
    return added


def add_demo(commands: Any) -> None:
    p = command(commands, "demo", demo, "reconstruct the synthetic brain that ships, offline, within a minute", "say what would be done")  # fmt: skip
    p.add_argument("--out", default=OUT, metavar="DIR", help=f"folder of the results (default ./{OUT})")


def add_inspect(commands: Any) -> None:
    p = command(commands, "inspect", inspect, "say what a k-space file holds, how it was sampled, and what is wrong with it")  # fmt: skip
    p.add_argument("files", nargs="+", metavar="FILE", help="k-space: HDF5 as fastMRI's, cfl, npy, npz")


def add_sampling(p: Parser, volumes: bool = True) -> None:
    """Flags of `recon.registry.recipe.Recipe` and `recon.runtime.Runtime`; what is not given keeps its default.

    ``volumes``: whether ``--slices`` says how many of a volume go together.
    """
    g = p.add_argument_group("how to sample (recon list shows the names)")
    g.add_argument("--sampler", metavar="NAME", help="posterior sampler (default dds)")
    g.add_argument("--solver", metavar="NAME", help="solver of the reverse diffusion (default sde-dpm++2m)")
    g.add_argument(
        "--prior", metavar="NAME|PATH", help="prior: a name that ships, or a .safetensors (default brain-mri)"
    )
    g.add_argument(
        "--steps", type=int, metavar="N", help="noise levels, one network call each for most solvers"
    )
    g.add_argument(
        "--samples", type=int, metavar="N", help="posterior samples; their mean and std are the result"
    )
    g.add_argument("--seed", type=int, metavar="N", help="seed of the samples (default 0)")
    g.add_argument(
        "--plugin", metavar="FILE.py", help="a Python file, whose objects are then named MODULE:NAME"
    )
    g = p.add_argument_group("where to run")
    g.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 (default auto)")
    g.add_argument("--dtype", metavar="NAME", help="of the network: float32, bf16, fp16")
    g.add_argument("--compile", action="store_true", default=None, help="compile the network first")
    g.add_argument(
        "--chunk", type=int, metavar="N", help="samples through the network at a time; 1 needs least memory"
    )
    if volumes:
        g.add_argument(
            "--slices", type=int, metavar="N", help="slices of a volume together (default: what a GPU holds)"
        )
    p.add_argument("--out", default=OUT, metavar="DIR", help=f"folder of the results (default ./{OUT})")
    p.add_argument("--overwrite", action="store_true", help="replace results made with other settings")


def add_mask(p: Parser, title: str) -> Any:
    """Flags of `recon.io.acquisition.MaskChoice`."""
    g = p.add_argument_group(title)
    g.add_argument("--accel", type=float, metavar="R", help="acceleration of a mask that is made")
    g.add_argument("--mask", metavar="NAME|FILE", help="random, equispaced, equispaced-fraction, gaussian, poisson, radial, or a file")  # fmt: skip
    g.add_argument(
        "--center", type=float, metavar="F", help="fully sampled share of the width (default .32 / R)"
    )
    return g


def add_reconstruct(commands: Any) -> None:
    p = command(commands, "reconstruct", reconstruct, "reconstruct k-space files, with the uncertainty of each pixel", "show settings, files, masks, calls and memory, and do nothing")  # fmt: skip
    p.add_argument("files", nargs="+", metavar="FILE", help="k-space files, or folders of them")
    g = add_mask(p, "undersampling (without: all lines, or the file's own mask)")
    g.add_argument(
        "--maps", metavar="FILE", help="sensitivity maps (default: estimated from the central lines)"
    )
    g.add_argument(
        "--sets",
        type=int,
        metavar="N",
        help="sets of maps; by default 2 where the object is wider than the image, else 1",
    )
    add_sampling(p)
    p.add_argument("--config", metavar="NAME|FILE", help="settings in YAML, or a preset; flags go first")


def add_restore(commands: Any) -> None:
    p = command(commands, "restore", restore, "restore pictures (png, jpg, npy) from blurred, masked or projected measurements", "check everything, and do nothing")  # fmt: skip
    p.add_argument("images", nargs="+", metavar="IMAGE", help="pictures to measure and restore; with --measured, measurements")  # fmt: skip
    p.add_argument("--operator", required=True, metavar="NAME|MODULE:CLASS", help="what was measured: recon list operators")  # fmt: skip
    p.add_argument("--operator-args", nargs="+", default=[], metavar="K=V", help="options of the operator; x.npy is a tensor")  # fmt: skip
    p.add_argument("--sigma", type=float, default=0.02, metavar="S", help="noise of the data, a real component, in their units (default .02)")  # fmt: skip
    p.add_argument("--measured", action="store_true", help="the inputs are measurements y (.npy), not images")
    p.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="size of the image, with --measured")
    add_sampling(p)


def add_calibrate(commands: Any) -> None:
    p = command(commands, "calibrate", calibrate, "measure how often the intervals hold the truth, and by what factor they are off", "show settings, files and calls, and do nothing")  # fmt: skip
    p.add_argument("inputs", nargs="+", metavar="INPUT", help="fully sampled k-space files, or stacks of magnitude slices (npz, images) that simulated coils measure")  # fmt: skip
    p.add_argument("--levels", nargs="+", type=float, metavar="L", help="levels of the intervals (default .5 .8 .9 .95)")  # fmt: skip
    p.add_argument("--slices", type=int, metavar="N", help="slices of each input, spread evenly (default 8, or all of fewer)")  # fmt: skip
    add_mask(p, "undersampling (default: random, 4-fold, 8 %% central lines)")
    add_sampling(p, volumes=False)
    p.add_argument("--config", metavar="NAME|FILE", help="settings in YAML, or a preset; flags go first")


def add_benchmark(commands: Any) -> None:
    p = command(commands, "benchmark", benchmark, "run a grid of problems, methods, solvers and budgets, and go on where it stopped", "check everything, list the cells, and do nothing")  # fmt: skip
    p.add_argument("config", metavar="CONFIG", help="the grid in YAML, or a preset, such as samplers")
    p.add_argument(
        "--data",
        metavar="DIR",
        help="folder that inputs are relative to (default: $RECON_SHARED_DATA, or where CONFIG is)",
    )
    p.add_argument("--out", default="recon_bench", metavar="DIR", help="folder of rows and report (default ./recon_bench)")  # fmt: skip
    p.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="cells of PROBLEM/METHOD, * for any")  # fmt: skip
    p.add_argument("--part", default="1/1", metavar="I/N", help="every N-th cell from the I-th on: N processes share a folder")  # fmt: skip
    p.add_argument(
        "--plugin", metavar="FILE.py", help="a Python file, whose objects are then named MODULE:NAME"
    )


def add_train(commands: Any) -> None:
    p = command(commands, "train", train, "train a prior, or go on with a training that was interrupted", "show the settings, and do nothing")  # fmt: skip
    p.add_argument("config", metavar="CONFIG", help="settings in YAML, or a preset, such as brain-mri")
    p.add_argument("--data-root", metavar="DIR", help="folder that the training sets are relative to")
    p.add_argument("--out", metavar="DIR", help="folder of the weights, the card and the checkpoint")


def add_list(commands: Any) -> None:
    p = command(commands, "list", list_names, "list operators, samplers, solvers, priors and masks")
    p.add_argument(
        "kind", nargs="?", choices=LISTS, metavar="KIND", help=f"one of {', '.join(LISTS)} (default all)"
    )


def add_check(commands: Any) -> None:
    p = command(commands, "check", check, "measure an operator of your own against the laws of a linear operator", "build it, and measure nothing")  # fmt: skip
    p.add_argument(
        "object", metavar="MODULE:CLASS", help="the class, an instance, or a function that returns one"
    )
    p.add_argument("--plugin", metavar="FILE.py", help="the Python file it is in")
    p.add_argument(
        "--args", nargs="+", default=[], metavar="K=V", help="what it is made with; x.npy is a tensor"
    )


def add_bench(commands: Any) -> None:
    p = command(
        commands, "bench", bench, "measure speed in ratios, and quality on real k-space", "say what would be measured"
    )  # fmt: skip
    p.add_argument("names", nargs="*", metavar="NAME", help="speed: help, operators (multicoil, super-resolution, ct), dds, samplers, solvers, all of them without a name; quality: mri, curve")  # fmt: skip
    p.add_argument(
        "--repetitions", type=int, default=20, metavar="N", help="of a short measurement (default 20)"
    )
    p.add_argument("--data", metavar="DIR", help="folder of the real data (default $RECON_SHARED_DATA)")
    p.add_argument("--config", metavar="YAML", help="recipe that mri and curve measure")
    g = p.add_argument_group("recon bench curve: PSNR against network calls, a curve a solver")
    g.add_argument("--solvers", nargs="+", default=[], metavar="NAME", help="of recon list solvers, with options after commas: ddim,eta=1")  # fmt: skip
    g.add_argument(
        "--calls",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="network calls a sample (default 5 to 100)",
    )
    g.add_argument(
        "--cases", nargs="+", default=[], metavar="CASE", help='"4x equispaced" and others (default all)'
    )
    g.add_argument("--samples", type=int, default=4, metavar="N", help="samples of each point (default 4)")
    g.add_argument(
        "--keep",
        default="noise",
        metavar="NAME",
        help="what DDS keeps: noise, state, or both (default noise)",
    )
    g.add_argument(
        "--out",
        default="examples",
        metavar="DIR",
        help="folder of solvers.csv, .md and .png (default ./examples)",
    )


# --- the commands ----------------------------------------------------------------------------------------

RECIPE = ("sampler", "solver", "prior", "steps", "samples", "seed", "sets")
RUNTIME = ("device", "dtype", "compile", "chunk", "slices")


def flags_of(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags that were given, by the names of the settings."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def show(settings: Any) -> None:
    """Settings as YAML on stdout."""
    from dataclasses import asdict

    import yaml

    print(yaml.safe_dump(asdict(settings), sort_keys=False, default_flow_style=None).rstrip())


def demo(args: argparse.Namespace) -> int:
    from .io.resources import demo_file
    from .jobs.shared.settings import settle
    from .registry.configuration import read_config

    args.files, args.overwrite = [str(demo_file())], True
    settings = settle(read_config("demo"), {})
    print("A synthetic brain, undersampled, is reconstructed with the prior that ships.")
    code = run_reconstruct(args, settings)
    if code == 0 and not args.dry_run:
        print(f"Next, your own: recon inspect FILE, then recon reconstruct FILE --out {args.out}")
    return code


def inspect(args: argparse.Namespace) -> int:
    from .io.outcome import Failure, Outcome, explained
    from .jobs.inspect import inspect as look

    outcome = Outcome()
    from pathlib import Path

    for name in args.files:
        try:
            print(look(name))
            outcome.done.append(Path(name))
        except Exception as error:
            outcome.failures.append(Failure(Path(name), explained(error, Path(name))))
            report(outcome.failures[-1].error, args.debug)
    return outcome.exit_code


def reconstruct(args: argparse.Namespace) -> int:
    from .jobs.shared.settings import settle
    from .registry.configuration import read_config
    from .registry.plugins import load_plugin

    if args.plugin:
        load_plugin(args.plugin)
    flags = flags_of(args, *RECIPE, *RUNTIME, "accel", "center", "maps") | {"mask_name": args.mask}
    return run_reconstruct(args, settle(read_config(args.config) if args.config else {}, flags))


def run_reconstruct(args: argparse.Namespace, settings: Any) -> int:
    from .jobs.reconstruct import reconstruct as run

    if args.dry_run:
        show(settings)
    outcome = run(
        args.files,
        settings,
        args.out,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        fail=lambda failure: report(failure.error, args.debug),
    )
    if outcome.fresh:
        print(
            f"Results: {', '.join(map(str, outcome.fresh))} (HDF5), with a picture of each slice beside them."
        )
        print(f"Look at: {outcome.fresh[0].with_suffix('')}_000.png")
    return outcome.exit_code


def restore(args: argparse.Namespace) -> int:
    from .jobs.restore import RECIPE as DEFAULTS
    from .jobs.restore import Restoration
    from .jobs.restore import restore as run
    from .registry.configuration import construct, parse_options
    from .registry.plugins import load_plugin
    from .registry.recipe import make_recipe
    from .runtime.runtime import Runtime

    if args.plugin:
        load_plugin(args.plugin)
    job = Restoration(
        args.operator,
        args.sigma,
        parse_options(args.operator_args),
        args.measured,
        tuple(args.size) if args.size else None,
        make_recipe(DEFAULTS | flags_of(args, *RECIPE)),
        construct(Runtime, flags_of(args, *RUNTIME), "The runtime"),
    )
    outcome = run(
        args.images,
        job,
        args.out,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        fail=lambda failure: report(failure.error, args.debug),
    )
    if outcome.done and not args.dry_run:
        print(f"Results: {', '.join(map(str, outcome.done))}, with a picture of each beside it (.png).")
    return outcome.exit_code


def calibrate(args: argparse.Namespace) -> int:
    from .jobs.calibrate import LEVELS, with_usual_mask
    from .jobs.calibrate import calibrate as run
    from .jobs.shared.settings import settle
    from .registry.configuration import read_config
    from .registry.plugins import load_plugin

    if args.plugin:
        load_plugin(args.plugin)
    runtime = [name for name in RUNTIME if name != "slices"]  # here the slices that are measured
    flags = flags_of(args, *RECIPE, *runtime, "accel", "center") | {"mask_name": args.mask}
    settings = with_usual_mask(settle(read_config(args.config) if args.config else {}, flags))
    if args.dry_run:
        show(settings)
    run(
        args.inputs,
        settings,
        args.levels or LEVELS,
        args.slices,
        args.out,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        say=print,
    )
    return 0


def benchmark(args: argparse.Namespace) -> int:
    from .benchmark.run import benchmark as run
    from .benchmark.specs import read_benchmark
    from .registry.plugins import load_plugin

    if args.plugin:
        load_plugin(args.plugin)
    plan = read_benchmark(args.config)
    here = Path(args.config).parent if Path(args.config).is_file() else Path(".")
    tally = run(
        plan,
        args.out,
        args.data or os.environ.get("RECON_SHARED_DATA") or here,
        only=args.only,
        part=part(args.part),
        command=f"recon benchmark {args.config}",
        dry_run=args.dry_run,
        fail=lambda error: report(error, args.debug),
    )
    if not args.dry_run:
        print(f"{tally.done} cells done now, {tally.skipped} before, {len(tally.failed)} failed.")
    if tally.written:
        print(f"Written: {', '.join(map(str, tally.written))}")
        print(f"Look at: {Path(args.out) / 'index.html'}")
    return tally.exit_code


def part(text: str) -> tuple[int, int]:
    """ "2/3" -> (2, 3)."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise ConfigError(f'--part is "{text}".', "It says which of how many.", "Write --part 1/2.")
    return int(index), int(count)


def train(args: argparse.Namespace) -> int:
    from .registry.configuration import construct, read_config
    from .training.autoencoder import AutoencoderConfig, train_autoencoder
    from .training.prior import TrainConfig
    from .training.prior import train as run

    settings = read_config(args.config) | flags_of(args, "data_root", "out")
    kinds = {"prior": (TrainConfig, run), "autoencoder": (AutoencoderConfig, train_autoencoder)}
    kind = str(settings.pop("kind", "prior"))
    if kind not in kinds:
        raise unknown("kind of training", kind, kinds)
    config = construct(kinds[kind][0], settings, "A training")
    if args.dry_run:
        show(config)
        return 0
    weights = kinds[kind][1](config) / f"{config.name}.safetensors"
    print(f"The {kind} is {weights}, with its card beside it.")
    if kind == "autoencoder":
        print("Next: recon train a prior of its latents, whose configuration names it as autoencoder.")
    else:
        sampler = " --sampler dps" if config.autoencoder else ""
        print(f"Next: recon reconstruct FILE --prior {weights}{sampler}")
    return 0


def list_names(args: argparse.Namespace) -> int:
    from .jobs.list import listing

    print(listing([args.kind] if args.kind else LISTS))
    return 0


def check(args: argparse.Namespace) -> int:
    from .jobs.check import check_operator
    from .registry.configuration import parse_options
    from .registry.operators import build_operator
    from .registry.plugins import load_plugin

    name = args.object
    if args.plugin:
        module = load_plugin(args.plugin)
        name = name if ":" in name else f"{module}:{name}"
    if args.dry_run:
        print(repr(build_operator(name, parse_options(args.args))))
        return 0
    print(check_operator(name, parse_options(args.args)))
    return 0


def bench(args: argparse.Namespace) -> int:
    from .speed.run import QUALITY, measurements
    from .speed.run import bench as run

    quality = [name for name in args.names if name in QUALITY]
    speed = [name for name in args.names if name not in quality]
    wanted = measurements(speed) if speed or not quality else []
    if args.dry_run:
        print("\n".join([*wanted, *quality]))
    elif wanted:
        run(wanted, args.repetitions)
    for name in quality:
        if name == "curve":
            draw_curve(args)
        elif not args.dry_run:
            from .benchmark.comparison import run_comparison

            run_comparison(args.config, args.data)
    return 0


def draw_curve(args: argparse.Namespace) -> None:
    from .benchmark.curve.run import run_curve

    made = run_curve(
        args.config,
        args.data,
        args.out,
        cases=args.cases,
        solvers=args.solvers,
        calls=args.calls,
        samples=args.samples,
        keep=args.keep,
        dry_run=args.dry_run,
    )
    if made:
        print(f"Written: {', '.join(map(str, made))}")


if __name__ == "__main__":
    sys.exit(main())
