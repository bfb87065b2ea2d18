"""The arguments of every command, as tables; what runs a command stands in `handlers`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import ConfigError, nearest
from .handlers import HANDLERS, LIST_KINDS

OUT = "recon_out"
DESCRIPTION = "From measurements to images with their uncertainty, with diffusion priors."
EPILOG = "Start with: recon demo. Help on one command: recon COMMAND --help."


class Parser(argparse.ArgumentParser):
    """argparse, with errors that say what, why and what to do."""

    def error(self, message: str) -> NoReturn:
        """Raise `ConfigError` instead of leaving the program."""
        raise ConfigError(f"{self.prog}: {message}.", do=f"See {self.prog} --help.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            kind = "command" if action.dest == "command" else action.dest
            raise ConfigError(
                f'{self.prog}: there is no {kind} "{value}".',
                f"Known: {', '.join(map(str, action.choices))}.",
                nearest(value, map(str, action.choices)),
            )


class Argument:
    """One argument: its name, how its value is called in the help, the help, and argparse's own keywords."""

    def __init__(self, name: str, metavar: str | tuple[str, ...], help: str, **more: Any):
        self.name, self.keywords = name, {"metavar": metavar, "help": help, **more}


def span(kind: type) -> Any:
    """What reads "first:last" as two numbers of this kind."""

    def read(text: str) -> tuple[Any, Any]:
        first, _, last = text.partition(":")
        try:
            return kind(first), kind(last)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f'"{text}" is not a first and a last number, such as 0:90'
            ) from None

    return read


class Switch(Argument):
    """A flag without a value."""

    def __init__(self, name: str, help: str, **more: Any):
        self.name, self.keywords = name, {"action": "store_true", "help": help, **more}


@dataclass(frozen=True)
class Command:
    """``help`` of a command, what its ``--dry-run`` does, its arguments, and groups of them under a title."""

    help: str
    dry_run: str
    arguments: tuple[Argument, ...] = ()
    groups: dict[str, tuple[Argument, ...]] = field(default_factory=dict)


def out_folder(default: str, holds: str = "folder for the results") -> Argument:
    """``--out``."""
    return Argument("--out", "DIR", f"{holds} (default ./{default})", default=default)


OVERWRITE = Switch("--overwrite", "replace existing results")
PLUGIN = Argument("--plugin", "FILE.py", "a Python file with objects of your own, named NAME or MODULE:NAME")
CONFIG = Argument(
    "--config", "NAME|FILE", "settings: a preset, or a YAML file; flags take precedence over it"
)
DATA = "$RECON_SHARED_DATA"

# of `recon.registry.recipe.Recipe` and `recon.runtime.Runtime`: what is not given keeps its default
SAMPLING_ARGUMENTS = {
    "sampling (recon list shows the names)": (
        Argument("--sampler", "NAME", "posterior sampler (default dds)"),
        Argument("--solver", "NAME", "solver of the reverse diffusion (default sde-dpm++2m)"),
        Argument(
            "--prior",
            "NAME|PATH",
            "prior that ships, by name, or a checkpoint, file or folder, also another project's (default brain-mri)",
        ),
        Argument(
            "--steps",
            "N",
            "number of noise levels; most solvers make one network call at each (default 10)",
            type=int,
        ),
        Argument(
            "--samples",
            "N",
            "number of posterior samples, whose mean and std are the result (default 16)",
            type=int,
        ),
        Argument("--seed", "N", "random seed (default 0)", type=int),
        PLUGIN,
    ),
}
DEVICE_ARGUMENTS = (
    Argument("--device", "NAME", "auto, cpu, cuda, cuda:1 (default auto)"),
    Argument(
        "--dtype",
        "NAME",
        "precision of the network: float32, bf16, fp16, or auto: bf16 on a processor that multiplies it, else float32 "
        "(default auto for k-space, float32 for restore)",
    ),
    Switch("--compile", "compile the network first", default=None),
    Argument("--chunk", "N", "samples through the network at a time; 1 needs the least memory", type=int),
)
SLICES_TOGETHER = Argument(
    "--slices", "N", "slices of a volume at a time (default: what a GPU can hold)", type=int
)
MASK_ARGUMENTS = (  # of `recon.io.acquisition.MaskChoice`
    Argument("--accel", "R", "acceleration factor of the mask", type=float),
    Argument(
        "--mask",
        "NAME|FILE",
        "kind of mask (random, equispaced, equispaced-fraction, gaussian, poisson, radial), or a file",
    ),
    Argument(
        "--center", "F", "fully sampled fraction of the lines, in the centre (default .32 / R)", type=float
    ),
)
MAPS_ARGUMENTS = (
    Argument("--maps", "FILE", "sensitivity maps (default: estimated from the central lines)"),
    Argument(
        "--sets", "N", "sets of maps (default: 2 where the object is wider than the image, else 1)", type=int
    ),
)
COILS_ARGUMENTS = (
    Switch(
        "--whiten",
        "make the coils' noise independent and alike, by the file's noise scan or its outer k-space",
        default=None,
    ),
    Argument("--coils", "N", "compress the coils to N virtual ones (default: all)", type=int),
)
LAYOUT_ARGUMENTS = (  # of `recon.io.checks.layout.Layout`
    Argument(
        "--fftshift",
        "WHAT",
        "move the centre of k-space (kspace, if no word follows), of the image (image), or both from the corner "
        "into the middle; none: use k-space as it is",
        nargs="?",
        const="kspace",
    ),
    Argument(
        "--axes",
        "A,B,...",
        "order of the axes in the file, of slices, kz, coils, h and w: h,w,coils; kz: a volume (default: "
        "slices,coils,h,w)",
    ),
    Argument(
        "--matrix",
        "N",
        "height and width of the image, or one number for both, where k-space lies along a trajectory (default: as the "
        "file says)",
        type=int,
        nargs="+",
    ),
)
SCAN_ARGUMENTS = (  # of `recon.jobs.shared.scans.ScanChoice`
    Argument("--views", "N", "use N of the views, evenly spread", type=int),
    Argument("--arc", "A:B", "use the views from A to B degrees", type=span(float)),
    Argument("--rows", "A:B", "use the slices from A to B - 1", type=span(int)),
    Argument(
        "--axis",
        "D|auto",
        "detector, from 0, that the rotation axis falls on; auto finds it (default: as the file says, else found)",
    ),
    Argument(
        "--size", "N", "pixels a side of the image (default: what holds the object, at most 512)", type=int
    ),
    Argument(
        "--pixel",
        "L",
        "side of a pixel, in the file's unit of length (default: what a detector sees)",
        type=float,
    ),
    Argument(
        "--water",
        "MU",
        "attenuation of water per the file's unit of length (default: the file's, else that of the object's bulk)",
        type=float,
    ),
    Argument(
        "--sigma",
        "S",
        "noise of a ray, in the units of the sinogram (default: from counts, else estimated)",
        type=float,
        dest="sigma_y",
    ),
    Switch(
        "--volume",
        "take slices as neighbours, which help each other (default where they are rows of one detector)",
        default=None,
    ),
    Switch("--no-volume", "take slices one by one", action="store_false", dest="volume", default=None),
    Switch("--radians", "the angles in the file are in radians", default=None),
    Switch(
        "--stripes", "take away what differs of a detector in all views: rings of the image", default=None
    ),
)
SPREAD = "one machine or many"
SPREAD_ARGUMENTS = (  # of `recon.runtime.cluster.Cluster`
    Argument(
        "--engine",
        "NAME",
        "here, or dask: over processes, of this machine or many (default here)",
        default="here",
    ),
    Argument("--workers", "N", "processes of this machine (default one a GPU, or one a core)", type=int),
    Argument(
        "--scheduler",
        "ADDRESS",
        "a dask scheduler that runs already, tcp://HOST:8786; its workers see the same files",
    ),
)
DENOISING_ARGUMENTS = (
    Argument(
        "--prior",
        "NAME|PATH",
        "a prior, the first of several to compare with (default brain-mri)",
        action="append",
    ),
    Argument("--sigmas", "S", "noise levels (default .01 to 5)", type=float, nargs="+", default=[]),
)
CURVE_ARGUMENTS = (
    Argument("--solvers", "NAME", "solvers, with options after commas: ddim,eta=1", nargs="+", default=[]),
    Argument("--calls", "N", "network calls per sample (default 5 to 100)", type=int, nargs="+", default=[]),
    Argument("--samples", "N", "samples per point (default 4)", type=int, default=4),
    Argument("--keep", "NAME", "what DDS keeps: noise, state, or both (default noise)", default="noise"),
)
SIMULATED_ARGUMENTS = (
    Argument("--images", "FILE", "magnitude slices (npz with `images`; default mri/eval of the data)"),
    Argument("--coils", "N", "numbers of coils (default 1 4 8 16 32)", type=int, nargs="+"),
    Argument("--matrix", "N", "sizes of the image (default 64 96 128 192 256 320 384)", type=int, nargs="+"),
    Argument("--lines", "N", "fully sampled central lines (default 4 8 16 24 40)", type=int, nargs="+"),
    Argument("--accel", "R", "acceleration factors (default 2 4 6 8 10)", type=float, nargs="+"),
    Argument(
        "--noise", "S", "std of the noise relative to the image (default .004 .02)", type=float, nargs="+"
    ),
    Argument("--mask", "NAME", "kinds of mask (default equispaced-fraction random)", nargs="+"),
    Argument("--cells", "N", "so many scans that cover the range (default all)", type=int),
    Argument("--seed", "N", "which scans, and their phase, coils and noise (default 0)", type=int, default=0),
    Argument("--again", "NAME", "methods to measure anew, as after a change", nargs="+", default=[]),
)
TRAJECTORY_ARGUMENTS = (
    Argument("--slices", "N", "so many of the first slices, of tomography too (default 2)", type=int),
)
TOMOGRAPHY_ARGUMENTS = (
    Argument("--size", "N", "pixels a side of the images of a chest (default 256)", type=int, default=256),
    Argument("--depth", "N", "slices of the volume (default 16)", type=int, default=16),
    Argument("--steps", "N", "noise levels of a walk (default those of recon reconstruct)", type=int),
)

COMMANDS = {
    "demo": Command(
        "reconstruct the synthetic brain that comes with recon, offline, within a minute",
        "say what would be done",
        (out_folder(OUT),),
    ),
    "inspect": Command(
        "show what k-space or sinograms a file holds, how they were sampled, and what is wrong; what a checkpoint is",
        "check the arguments and do nothing",
        (
            Argument(
                "files",
                "FILE",
                "k-space: fastMRI HDF5, ISMRMRD, BART cfl, npy or npz; sinograms: npz, HDF5 or TIFF; or weights of a prior",
                nargs="+",
            ),
            *LAYOUT_ARGUMENTS,
        ),
    ),
    "reconstruct": Command(
        "reconstruct k-space files or sinograms, with the uncertainty of each pixel",
        "show settings, files, masks, calls and memory, and do nothing",
        (
            Argument("files", "FILE", "k-space files or sinograms, or folders of them", nargs="+"),
            out_folder(OUT),
            OVERWRITE,
            CONFIG,
            Argument(
                "--format",
                "NAME",
                "also write mean and std as nifti, dicom or tiff; may be repeated",
                action="append",
            ),
            Argument(
                "--dicom-template", "FILE", "a DICOM image of the study, whose patient and study DICOM gets"
            ),
        ),
        {
            "undersampling (default: the file's own mask, or all lines)": MASK_ARGUMENTS,
            "coils": COILS_ARGUMENTS,
            "sensitivity maps": MAPS_ARGUMENTS,
            "files that lie otherwise than (slices, coils, H, W), centre in the middle": LAYOUT_ARGUMENTS,
            "sinograms (default: all views, prior chest-ct, 40 steps, 8 samples)": SCAN_ARGUMENTS,
            **SAMPLING_ARGUMENTS,
            "hardware": (*DEVICE_ARGUMENTS, SLICES_TOGETHER),
            SPREAD: SPREAD_ARGUMENTS,
        },
    ),
    "restore": Command(
        "restore pictures or arrays (png, jpg, tif, npy) from blurred, masked or projected measurements",
        "check everything, show what would be done, and do nothing",
        (
            Argument(
                "images", "IMAGE", "images to measure and restore; with --measured, measurements", nargs="+"
            ),
            Argument(
                "--operator",
                "NAME|MODULE:CLASS",
                "operator that made the measurements (recon list operators shows the names)",
                required=True,
            ),
            Argument(
                "--operator-args",
                "K=V",
                "options of the operator; a file name (x.npy, x.png) stands for the array in the file",
                nargs="+",
                default=[],
            ),
            Argument(
                "--sigma",
                "S",
                "std of the noise per real component, in the units of the data (default .02)",
                type=float,
                default=0.02,
            ),
            Switch("--measured", "the inputs are measurements y, not images"),
            Argument("--size", ("H", "W"), "size of the image, with --measured", type=int, nargs=2),
            out_folder(OUT),
            OVERWRITE,
        ),
        {**SAMPLING_ARGUMENTS, "hardware": DEVICE_ARGUMENTS},
    ),
    "calibrate": Command(
        "measure how often the intervals hold the truth, and by what factor they are off",
        "show settings, files and calls, and do nothing",
        (
            Argument(
                "inputs",
                "INPUT",
                "fully sampled k-space files, or magnitude images (npz with `images`), measured by simulated coils",
                nargs="+",
            ),
            Argument(
                "--levels", "L", "levels of the intervals (default .5 .8 .9 .95)", type=float, nargs="+"
            ),
            Argument(
                "--slices",
                "N",
                "slices of each input, spread evenly (default 8, or all if there are fewer)",
                type=int,
            ),
            out_folder(OUT),
            OVERWRITE,
            CONFIG,
        ),
        {
            "undersampling (default: random, 4-fold, the central 8 %)": MASK_ARGUMENTS,
            "files that lie otherwise than (slices, coils, H, W), centre in the middle": LAYOUT_ARGUMENTS,
            **SAMPLING_ARGUMENTS,
            "hardware": DEVICE_ARGUMENTS,
        },
    ),
    "benchmark": Command(
        "run a grid of problems, methods, solvers and budgets, and continue where it stopped",
        "check everything, list the cells, and do nothing",
        (
            Argument("config", "CONFIG", "the grid in YAML, or a preset, such as samplers"),
            Argument(
                "--data", "DIR", f"folder that inputs are relative to (default {DATA}, or that of CONFIG)"
            ),
            out_folder("recon_bench", "folder for rows and report"),
            Argument("--only", "PATTERN", "cells of PROBLEM/METHOD, * for any", nargs="+", default=[]),
            Argument(
                "--part",
                "I/N",
                "every N-th cell from the I-th on, so that N processes share a folder",
                default="1/1",
            ),
            PLUGIN,
        ),
        {SPREAD: SPREAD_ARGUMENTS},
    ),
    "tune": Command(
        "search a sampler's options on a validation split, and compare what is found with its recipe",
        "check everything, show what is searched, and do nothing",
        (
            Argument("config", "CONFIG", "sampler, problems and splits in YAML, or a preset, such as tune"),
            Argument("--sampler", "NAME", "sampler in the place of CONFIG's"),
            Argument("--trials", "N", "number of trials (default that of CONFIG)", type=int),
            Argument(
                "--data", "DIR", f"folder that inputs are relative to (default {DATA}, or that of CONFIG)"
            ),
            out_folder("recon_tune", "folder for trials, presets and the comparison"),
            PLUGIN,
        ),
    ),
    "train": Command(
        "train a prior, or continue a training that was interrupted",
        "show the settings and do nothing",
        (
            Argument("config", "CONFIG", "settings in YAML, or a preset, such as brain-mri"),
            Argument("--data-root", "DIR", "folder that the training sets are relative to"),
            Argument("--out", "DIR", "folder for weights, card and checkpoint"),
            Argument(
                "--init", "NAME|PATH", "weights to go on from: a prior that ships, or a .safetensors file"
            ),
        ),
    ),
    "list": Command(
        "list operators, samplers, solvers, priors and masks",
        "check the arguments and do nothing",
        (
            Argument(
                "kind", "KIND", f"one of {', '.join(LIST_KINDS)} (default all)", nargs="?", choices=LIST_KINDS
            ),
        ),
    ),
    "check": Command(
        "test an operator of your own against the laws of linear operators",
        "build the operator and measure nothing",
        (
            Argument(
                "object", "MODULE:CLASS", "the operator: a class, an instance, or a function that returns one"
            ),
            Argument(
                "--args",
                "K=V",
                "what it is built from; a file name (x.npy, x.png) stands for the array in the file",
                nargs="+",
                default=[],
            ),
            PLUGIN,
        ),
    ),
    "bench": Command(
        "measure speed, as ratios, and quality on real k-space and where the posterior is known",
        "say what would be measured",
        (
            Argument(
                "names",
                "NAME",
                "speed: help, operators (multicoil, super-resolution, ct), dds, samplers, solvers, workers, all if no name "
                "is given; quality: mri, simulated, trajectory, curve, denoising, gold, tomography",
                nargs="*",
            ),
            Argument(
                "--repetitions", "N", "repetitions of a short measurement (default 20)", type=int, default=20
            ),
            Argument("--data", "DIR", f"folder of the real data (default {DATA})"),
            Argument("--config", "NAME|FILE", "settings for the quality: a preset, or a YAML file"),
            Argument(
                "--out",
                "DIR",
                "folder for tables (default ./recon_bench for simulated, ./examples for curve), and for pictures of tomography (default none)",
            ),
            Argument(
                "--methods",
                "NAME",
                "for mri, simulated and trajectory: zero-filled, cg-sense, bart, tv, oracle, recon; for gold samplers (default all there are); for tomography fbp, sirt, cgls, tv, tv-3d and samplers",
                nargs="+",
                default=[],
            ),
            Argument(
                "--cases",
                "CASE",
                'for mri and curve: masks by name, such as "4x equispaced"; for trajectory such as "radial, 24 spokes"; for gold laws and operators, such as spikes; for tomography sparse-8, sparse-23, sparse-49, low-dose-49, fan-46, limited-90, tooth, helsinki, volume-8, volume-30',
                nargs="+",
                default=[],
            ),
            Argument(
                "--scans",
                "FILE",
                "for mri: fully sampled k-space of your own in place of the data's",
                nargs="+",
                default=[],
            ),
        ),
        {
            "recon bench simulated: reconstructions of scans simulated over the range they come in": SIMULATED_ARGUMENTS,
            "recon bench trajectory: radial and spiral scans simulated from --images, phase, coils and noise from --seed": TRAJECTORY_ARGUMENTS,
            "recon bench tomography: chest slices and a volume behind simulated X-rays, and real sinograms": TOMOGRAPHY_ARGUMENTS,
            "recon bench curve: PSNR against network calls, one curve per solver": CURVE_ARGUMENTS,
            "recon bench denoising: PSNR of priors on the validation sets of a training's --config (default brain-mri)": DENOISING_ARGUMENTS,
        },
    ),
}


def parser() -> Parser:
    """The parser of all commands; ``run`` of what it returns is a command's handler."""
    top = Parser(prog="recon", description=DESCRIPTION, epilog=EPILOG)
    top.add_argument("--version", action="store_true", help="print the version and exit")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top.set_defaults(run=lambda args: HANDLERS["version"](args) if args.version else top.print_help() or 0)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        add_command(commands, name, command)
    return top


def add_command(commands: Any, name: str, command: Command) -> None:
    """A subparser with the arguments of ``command``, and ``--dry-run`` and ``--debug``, which all have."""
    help = command.help
    added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    added.set_defaults(run=HANDLERS[name])
    debug = Switch("--debug", "show the traceback of an error", default=argparse.SUPPRESS)
    for argument in (*command.arguments, Switch("--dry-run", command.dry_run), debug):
        added.add_argument(argument.name, **argument.keywords)
    for title, arguments in command.groups.items():
        group = added.add_argument_group(title)
        for argument in arguments:
            group.add_argument(argument.name, **argument.keywords)
