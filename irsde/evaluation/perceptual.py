"""LPIPS distance (Zhang et al. 2018, AlexNet, v0.1) from weight files, without torchvision.

d(x, y) = sum over layers of the spatial mean of w · (f̂(x) - f̂(y))², f̂ the features of one layer scaled to unit length
over channels. The backbone is read from a state dict given by the user; the heads w are those that torchmetrics ships.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ussim.extras import how_to_install

from ..errors import MetricUnavailable

# AlexNet's convolutions: index in torchvision's `features`, stride, padding, whether max pooling comes before.
LAYERS = ((0, 4, 2, False), (3, 1, 2, True), (6, 1, 1, True), (8, 1, 1, False), (10, 1, 1, False))
SHIFT = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)  # of the published metric, for inputs in [-1, 1]
SCALE = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)


@lru_cache(maxsize=2)
def load_lpips(backbone: str) -> Any:
    """Return the distance as a function of two (nz, nx) images in [0, 1].

    Raises MetricUnavailable, saying what is missing.
    """
    weights = _read(Path(backbone))
    heads = _read(_head_file())
    for index, *_ in LAYERS:
        if f"features.{index}.weight" not in weights:
            raise MetricUnavailable(f"{backbone}: expected AlexNet's state dict, found no features.{index}.weight")

    def features(image: np.ndarray) -> list[torch.Tensor]:
        x = torch.as_tensor(image, dtype=torch.float32).expand(1, 3, -1, -1)
        x = (2 * x - 1 - SHIFT) / SCALE
        found = []
        for index, stride, padding, pool in LAYERS:
            x = F.max_pool2d(x, 3, 2) if pool else x
            w, b = weights[f"features.{index}.weight"], weights[f"features.{index}.bias"]
            x = F.relu(F.conv2d(x, w, b, stride, padding))
            found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    @torch.no_grad()
    def distance(image: np.ndarray, reference: np.ndarray) -> float:
        if min(image.shape) < 63:
            raise MetricUnavailable(f"LPIPS needs images of at least 63 pixels a side, got {image.shape}")
        pairs = zip(features(image), features(reference), strict=True)
        layers = [F.conv2d((a - b) ** 2, heads[f"lin{k}.model.1.weight"]).mean() for k, (a, b) in enumerate(pairs)]
        return float(sum(layers))

    return distance


def _head_file() -> Path:
    spec = find_spec("torchmetrics")
    path = Path(spec.origin).parent / "functional/image/lpips_models/alex.pth" if spec and spec.origin else None
    if path is None or not path.exists():
        raise MetricUnavailable(f"LPIPS needs the linear heads of torchmetrics: {how_to_install('torchmetrics')}")
    return path


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of zip, pickle or torch, as the file has it
        reason = (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0]
        raise MetricUnavailable(f"{path}: cannot be read as a PyTorch state dict ({reason})") from None
