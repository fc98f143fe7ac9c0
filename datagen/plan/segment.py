"""Tissue by SAM 2 (Ravi et al.

2024, "SAM 2: segment anything in images and videos"), an extra: it needs the package `sam2` and a checkpoint that the
user has downloaded. `grey.foreground` (Otsu) is what is used otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ussim.errors import DataError
from ussim.extras import needs
from ussim.volumes.grey import foreground, largest_component

# Word in a checkpoint's name -> letter in its configuration's name, as the package `sam2` ships them.
_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def sam2_segmenter(checkpoint: str | Path | None, device: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Return a segmenter for `slices.hq_slices`: SAM 2, prompted with the box and the middle of what Otsu's threshold finds.

    Parameters
    ----------
    checkpoint : a file named as it was published, e.g. sam2.1_hiera_small.pt
    device : of torch, None = "cuda" where there is one, else "cpu"

    Raises
    ------
    DataError
        The checkpoint is missing, or its name is not one of SAM 2's.
    MissingPackageError
        The package is not installed.
    """
    if checkpoint is None:
        raise DataError("segmenter sam2 needs a checkpoint: --sam2-checkpoint sam2.1_hiera_small.pt")
    path = Path(checkpoint)
    configuration = _configuration(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; download one from https://github.com/facebookresearch/sam2")
    for module in ("sam2.build_sam", "sam2.sam2_image_predictor", "torch"):
        needs(module)
    import torch
    from sam2.build_sam import build_sam2
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    predictor = SAM2ImagePredictor(build_sam2(configuration, str(path), device=device))

    def segment(image: np.ndarray) -> np.ndarray:
        prompt = foreground(image)
        if not prompt.any():
            return prompt
        rows, columns = np.nonzero(prompt)
        box = np.array([columns.min(), rows.min(), columns.max(), rows.max()])  # x0, y0, x1, y1
        # The tissue pixel nearest to the middle: the middle itself may lie outside a bent region.
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        point = np.array([[columns[nearest], rows[nearest]]])
        grey = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        with torch.inference_mode():
            predictor.set_image(np.repeat(grey[..., np.newaxis], 3, axis=2))
            masks, scores, _ = predictor.predict(
                point_coords=point, point_labels=np.array([1]), box=box, multimask_output=True
            )
        return largest_component(np.asarray(masks[int(np.argmax(scores))]) > 0.5)

    return segment


def _configuration(checkpoint: Path) -> str:
    """Return the configuration that belongs to a checkpoint, from its name."""
    name = checkpoint.stem
    for version in ("sam2.1", "sam2"):
        for word, letter in _SIZES.items():
            if name == f"{version}_hiera_{word}":
                return f"configs/{version}/{version}_hiera_{letter}.yaml"
    expected = ", ".join(f"sam2.1_hiera_{word}.pt" for word in _SIZES)
    raise DataError(f"{checkpoint}: not the name of a SAM 2 checkpoint; expected one of {expected} (or sam2_hiera_...)")
