"""The shipped despeckler's network: a small residual U-Net about a smoothed copy of its input.

Output = smoothed input + network. From the plain input a network spends its training on cancelling the noise of each pixel;
from the smoothed one it begins near the answer. Grey levels come in by the image's own mean and standard deviation and leave
by them (`irsde.data.Normalization`), so that a display's brightness and contrast are not learned.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FOLD = 2  # pixels a side gathered into channels first: no convolution but the last sees full resolution
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
SMOOTHINGS = 2
HEAD = 8  # channels of the last layer, at full resolution
GUARD = 5.0  # pixels, standard deviation of the blur within which the mean grey level is guarded
LEARNING_GUARD = 20.0  # the same while learning: a network taught within the narrow one learns to undo it


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)  # begins as the identity: no normalization is needed
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, nz, nx) -> the same shape."""
        return x + self.second(F.relu(self.first(F.relu(x))))


class Despeckler(nn.Module):
    """The network on standardized images (n, 1, nz, nx) of any size.

    Parameters
    ----------
    channels : of the levels, each at half the resolution of the one before; the first at half that of the image.
    blocks : residual blocks per level on the way down; the way up has one.
    guard : standard deviation, in pixels, of the blur within which the output's mean is the input's; 0 = none.
    """

    def __init__(self, channels: tuple[int, ...] = (24, 48, 96), blocks: int = 2, guard: float = GUARD):
        super().__init__()
        self.multiple = FOLD * 2 ** (len(channels) - 1)
        self.guard = guard
        self.stem = nn.Conv2d(FOLD**2, channels[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Sequential(*(Block(c) for _ in range(blocks))) for c in channels)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(channels))  # with a pixel shuffle
        self.up = nn.ModuleList(Block(c) for c in channels[:-1])
        self.head = nn.Conv2d(channels[0], HEAD * FOLD**2, 1)
        self.last = nn.Conv2d(HEAD + 1, 1, 3, padding=1)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.last.weight, std=0.02)

    def forward(self, lq: Tensor) -> Tensor:
        """Predict the expected image of standardized images (n, 1, nz, nx)."""
        height, width = lq.shape[-2:]
        image = F.pad(lq, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        with torch.autocast(image.device.type, enabled=False):  # rounded to eight bits, grey levels would show steps
            base = self.smoothed(image)
        x = self.stem(F.pixel_unshuffle(image, FOLD))
        passed = []
        for level, down in enumerate(self.down):
            x = down(x)
            if level < len(self.shrink):
                passed.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            x = passed[level] + F.pixel_shuffle(self.grow[level](x), 2)
            x = self.up[level](x)
        x = torch.cat([F.relu(F.pixel_shuffle(self.head(x), FOLD)), image.to(x.dtype)], 1)
        out = base + self.last(x).float()
        if self.guard:
            with torch.autocast(image.device.type, enabled=False):
                out = out + blurred(image - out, LEARNING_GUARD if self.training else self.guard)
        return out[..., :height, :width]

    def smoothed(self, image: Tensor) -> Tensor:
        """Return the image after the binomial filter, mirrored at its borders."""
        row = torch.tensor(BINOMIAL, dtype=image.dtype, device=image.device) / sum(BINOMIAL)
        kernel = torch.outer(row, row)[None, None]  # no buffer: of one channel, last or not, its copies would overlap
        for _ in range(SMOOTHINGS):
            image = F.conv2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), kernel)
        return image


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Return images (n, 1, nz, nx) after a Gaussian filter of 2.5 standard deviations' reach, mirrored at their borders."""
    reach = round(2.5 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(image.dtype)
    padded = _mirrored(image, reach)
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None, :])


def _mirrored(image: Tensor, reach: int) -> Tensor:
    """Return images (..., nz, nx) mirrored `reach` pixels beyond their borders, as far as they go; then held."""
    if torch.jit.is_tracing():  # of any size: what is compared below would stay as it is for the traced one
        for axis in (-2, -1):
            last = torch.as_tensor(image.shape[axis] - 1, device=image.device)
            place = torch.arange(-reach, image.shape[axis] + reach, device=image.device)
            place = torch.maximum(torch.minimum(place, 2 * last), -last).abs()
            image = image.index_select(axis, torch.minimum(place, 2 * last - place))
        return image
    rows, columns = min(reach, image.shape[-2] - 1), min(reach, image.shape[-1] - 1)
    padded = F.pad(image, (columns, columns, rows, rows), mode="reflect")
    return F.pad(padded, (reach - columns, reach - columns, reach - rows, reach - rows), mode="replicate")
