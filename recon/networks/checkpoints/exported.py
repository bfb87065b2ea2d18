"""Modules exported by `torch.export`: a graph of tensor operations and its weights, without the code that made them."""

from __future__ import annotations

import inspect
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...priors import Prior, discrete_label, from_flow
from .adm import PREDICTS, SCHEDULES
from .building import AS_THEY_ARE, PHOTOGRAPHS, Choices, finished, refuse_channels
from .files import is_script, unpickled

OPERATIONS = ("torch.ops.aten.", "torch.ops.higher_order.", "torch.sym_", "_operator.", "math.")
QUOTED = re.compile(r"'[su]\d+'")
FORMULA = re.compile(r"[\w\s+\-*/%(),<>=!&|~]*")
FORMULA_WORDS = frozenset(
    [
        "Symbol",
        "Integer",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Mod",
        "PythonMod",
        "FloorDiv",
        "CeilDiv",
        "CleanDiv",
        "ModularIndexing",
        "Max",
        "Min",
        "Abs",
        "Equality",
        "Unequality",
        "StrictLessThan",
        "StrictGreaterThan",
        "LessThan",
        "GreaterThan",
        "Eq",
        "Ne",
        "Lt",
        "Le",
        "Gt",
        "Ge",
        "And",
        "Or",
        "Not",
        "int_oo",
        "oo",
        "positive",
        "negative",
        "nonnegative",
        "nonzero",
        "integer",
        "real",
        "finite",
        "True",
        "False",
    ]
)
"""What formulas of sizes are made of, beside symbols such as s0 and numbers."""


def load_exported(path: Path, given: Mapping[str, Any]) -> Prior:
    """The prior of ``module(x, label)``, exported with x (rows, channels, H, W) and label (rows,) or a number.

    ``predicts``: "denoised", the default: the label is sigma, and the result D(x, sigma) on images from 0 to 1;
    or "epsilon", "v_prediction", "sample" of a table, ``noise_schedule`` "linear" or "cosine" of
    ``diffusion_steps``, the label its step, or "flow", the label a time from 0 to 1: all on images from -1 to 1.
    A module exported for a fixed number of rows runs on that many at a time; for a fixed size it
    takes images of that size. `torch.export.load` unpickles what it is given and evaluates its formulas, so the
    archive is searched first. Raises `ConfigError` for one that holds more than tensors and their operations, as
    those of older releases of PyTorch do, which pickle the weights.
    """
    options = Choices(path, "a module exported by torch.export", given)
    refuse_code(path)
    try:
        program = torch.export.load(path)
        guarded = "check_guards" in inspect.signature(program.module).parameters
        module = program.module(**({"check_guards": False} if guarded else {}))
    except Exception as error:  # of the reader, whatever the archive makes it raise
        raise unreadable(path, error) from error
    inputs = [
        node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 2 or not isinstance(inputs[0], Tensor) or inputs[0].ndim != 4:
        raise ConfigError(
            f"{path} was exported with {len(inputs)} inputs: {', '.join(str(tuple(getattr(i, 'shape', ()))) for i in inputs)}.",
            "A denoiser has two, x (rows, channels, H, W) and its noise level.",
            "Export such a function of the network: torch.export.export(module, (x, sigma), dynamic_shapes=...).",
        )
    run = Exported(module, inputs, path)
    predicts = options.choose("predicts", "denoised", ("denoised", "flow", *PREDICTS))
    values = PHOTOGRAPHS
    if predicts == "denoised":
        values = AS_THEY_ARE
        low, high = options.number("sigma_min", None, True), options.number("sigma_max", None, True)
        plain = Prior(lambda x, s: run(x, torch.full((len(x),), s)), sigma_min=low, sigma_max=high)
    elif predicts == "flow":
        plain = from_flow(run, sigma_min=0.002, sigma_max=1000.0)
    else:
        schedule = options.choose("noise_schedule", "linear", SCHEDULES)
        table = SCHEDULES[schedule](options.count("diffusion_steps", 1000, True))
        low, high = (math.sqrt((1 - a) / a) for a in (table[0], table[-1]))
        plain = PREDICTS[predicts](run, discrete_label(table), sigma_min=low, sigma_max=high)
    values = AS_THEY_ARE if run.channels == 2 else values
    prior = finished(plain, module, options, run.channels, None, values)
    options.refuse_rest()
    return prior


class Exported:
    """The module at its door: its precision, its fixed number of rows and size, its kind of label."""

    def __init__(self, module: nn.Module, inputs: list[Any], path: Path):
        self.module, self.path = module, path
        self.dtype, self.label = inputs[0].dtype, inputs[1]
        self.channels = int(inputs[0].shape[1])
        self.rows, _, *self.size = (side if isinstance(side, int) else None for side in inputs[0].shape)

    def __call__(self, x: Tensor, label: Tensor) -> Any:
        """``module(x, label)``, x (rows, channels, H, W) and label (rows,)."""
        refuse_channels(x, self.channels)
        if any(wanted not in (None, side) for wanted, side in zip(self.size, x.shape[-2:], strict=True)):
            raise ConfigError(
                f"{self.path} was given images of {' x '.join(map(str, x.shape[-2:]))}.",
                f"It was exported for {' x '.join('any' if side is None else str(side) for side in self.size)}.",
                "Export it again, with dynamic_shapes for height and width.",
            )
        step = self.rows or len(x)
        parts = [self.one(part, label, step) for part in x.to(self.dtype).split(step)]
        return torch.cat(parts).to(x.dtype)

    def one(self, x: Tensor, label: Tensor, rows: int) -> Tensor:
        """At most ``rows`` rows, filled up with copies of the first."""
        count = len(x)
        x = torch.cat([x, x[:1].expand(rows - count, *x.shape[1:])]) if count < rows else x
        if isinstance(self.label, Tensor):
            value: Any = label[:1].to(x.device, self.label.dtype)
            value = value.expand(rows) if self.label.ndim else value[0]
        else:
            value = float(label[0])
        answer = self.module(x, value)
        if isinstance(answer, tuple | list):
            answer = answer[0]
        elif not isinstance(answer, Tensor):
            answer = answer["sample"] if isinstance(answer, Mapping) else answer.sample
        return answer[:count]


def refuse_code(path: Path) -> None:
    """Raise `ConfigError` where an archive holds more than tensors, their operations, and formulas of sizes."""
    if is_script(path):
        unpickled(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            inner = {
                name.partition("/")[2]: archive.read(name)
                for name in names
                if "/data/weights/weight_" not in name
            }
    except (OSError, zipfile.BadZipFile) as error:
        raise unreadable(path, error) from error
    found: str | None = None
    if not any(name.startswith("models/") for name in inner):
        raise unreadable(path, ValueError("it has no graph"))
    for name, data in inner.items():
        if re.match(r"data/(weights|constants)/.*\.pt$|data/(aotinductor|executorch)", name):
            found = f"{name}, of an older or another kind"
        elif re.match(r"data/sample_inputs/", name) and not is_of_tensors(data):
            found = f"inputs that are not tensors alone, {name}"
        elif name.endswith(".json"):
            found = found or next(suspicious(json.loads(data)), None)
    if found:
        raise ConfigError(
            f"{path} holds {found}.",
            "Only graphs of tensor operations and their weights are opened: the rest can run code.",
            "Export the plain network again with this PyTorch: torch.export.save(torch.export.export(...), 'network.pt2').",
        )


def is_of_tensors(data: bytes) -> bool:
    """Whether a pickle is one of tensors and plain values."""
    if not data:
        return True
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # of the reader
        return False
    return True


def suspicious(value: Any) -> Iterator[str]:
    """What in the JSON of an archive is neither a tensor, nor an operation on tensors, nor a formula of sizes."""
    if isinstance(value, list):
        for part in value:
            yield from suspicious(part)
    if not isinstance(value, Mapping):
        return
    for name, part in value.items():
        if (name == "use_pickle" and part) or (
            name == "path_name" and re.match(r"(custom|opaque)_obj", str(part))
        ):
            yield "a pickle among its weights"
        elif (
            name == "target"
            and isinstance(part, str)
            and "inputs" in value
            and not part.startswith(OPERATIONS)
        ):
            yield f"a call of {part[:60]}"
        elif name == "expr_str" and not is_formula(part):
            yield f"the formula {str(part)[:60]}"
        else:
            yield from suspicious(part)


def is_formula(text: Any) -> bool:
    """Whether a text is made of numbers, symbols of sizes and arithmetic."""
    bare = QUOTED.sub("s0", str(text))
    words = re.findall(r"[A-Za-z_]\w*", bare)
    return bool(FORMULA.fullmatch(bare)) and all(
        w in FORMULA_WORDS or re.fullmatch(r"[su]\d+", w) for w in words
    )


def unreadable(path: Path, error: Exception) -> ConfigError:
    """The error for what is no exported module, or one of another release of PyTorch."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:120]
    return ConfigError(
        f"{path} cannot be read as a module exported by torch.export.",
        f"It is damaged, of another kind, or of another PyTorch: {reason}.",
        "Export it again with this PyTorch: torch.export.save(torch.export.export(network, (x, sigma)), 'network.pt2').",
    )
