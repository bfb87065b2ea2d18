"""LPIPS by the package ``lpips``, its AlexNet from a file of the user's: nothing is downloaded."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor

from operators.errors import import_extra

from ..errors import ConfigError
from ..metrics import least_squares_scale
from ..networks.checkpoints.files import read_tensors_of
from .answer import Answer
from .scene import Scene

FILE = "torchvision's AlexNet of ImageNet, alexnet-owt-7be5be79.pth"
LPIPS = f"LPIPS 0.1 (Zhang et al., CVPR 2018) of {FILE.partition(',')[0]}; mean over the samples; 0 for equal images"
"""How the metric is defined."""


class Perceptual:
    """LPIPS of answers against their scene's reference, by AlexNet with the weights in the file ``path``.

    The file is torchvision's state_dict (``features.0.weight``, ...), as .pth or safetensors; the linear layers are those
    of the package. Raises `ConfigError` where the package or the file is missing, or the file is another network's.
    ``digest``: of the file's bytes.
    """

    def __init__(self, path: Path):
        library = import_extra("lpips", "perceptual", "LPIPS is computed with", ConfigError)
        if not path.is_file():
            raise ConfigError(
                f"{path} does not exist.",
                f"LPIPS needs {FILE}; nothing is downloaded.",
                "Correct the path of metrics.lpips, which is relative to the folder of the data.",
            )
        self.digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's use of torchvision
            self.network = library.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
        given = read_tensors_of(path)
        wanted = {
            name: name.replace(name.split(".")[0], "features", 1) for name in self.network.net.state_dict()
        }
        kinds = {name: value.shape for name, value in self.network.net.state_dict().items()}
        wrong = [own for name, own in wanted.items() if own not in given or given[own].shape != kinds[name]]
        if wrong:
            raise ConfigError(
                f"{path} is not AlexNet.",
                f"It has no {wrong[0]} of shape {tuple(kinds[next(n for n in wanted if wanted[n] == wrong[0])])}.",
                f"Name the file of {FILE}.",
            )
        self.network.net.load_state_dict({name: given[own].float() for name, own in wanted.items()})
        self.network.requires_grad_(False)

    def __call__(self, scene: Scene, answer: Answer) -> float:
        """The mean over the samples, of one image of that; magnitudes scaled by least squares, black at 0 and white at 1."""
        reference, samples = scene.reference.cpu(), scene.compared(answer.samples)
        if not scene.colour:
            scales = torch.tensor([least_squares_scale(one, reference) for one in samples])
            top = reference.max()
            reference, samples = reference / top, samples * scales[:, None, None].to(samples) / top
        with torch.no_grad():
            found = [self.network(in_range(one), in_range(reference)) for one in samples]
        return float(torch.stack(found).mean())


def in_range(image: Tensor) -> Tensor:
    """An image (h, w) or (3, h, w), 0 to 1, as (1, 3, h, w) from -1 to 1."""
    return 2 * image.float().clamp(0, 1).expand(3, *image.shape[-2:])[None] - 1
