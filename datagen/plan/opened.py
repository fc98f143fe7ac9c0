"""A volume opened for a dataset: its voxels as they are shown, which of them are black and white, its labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ussim.volumes.budget import limited_memory
from ussim.volumes.grey import to_unit
from ussim.volumes.volume import Volume, VolumeRef
from ussim.volumes.window import Window, window_of

from ..sources import get_source
from .labels import Labels, labels_of, values_of
from .resolved import Cutting
from .slices import to_uint8


@dataclass(frozen=True, eq=False)
class Opened:
    """A volume read: its voxels as they are shown, which of them are black and white, its labels."""

    volume: Volume
    window: Window
    labels: Labels | None


def open_volume(ref: VolumeRef, cutting: Cutting) -> Opened:
    """Read a volume and, where they are asked for, its labels; what tissues it shows is painted into it."""
    volume, source = _load(ref), get_source(ref.source)
    labels = None
    if source.is_labels:
        labels = Labels(volume, "", {}, values_of(volume.voxels))
    elif cutting.labels is not None:
        with limited_memory(ref.max_memory):
            labels = labels_of(ref, volume, cutting.labels)
    if labels is None or cutting.tissues is None:
        return Opened(volume, window_of(volume, cutting.window), labels)
    own = None if source.is_labels else window_of(volume, cutting.window)
    grey = None if own is None else to_uint8(to_unit(volume.voxels, own.grey))
    painted = cutting.tissues.painted(grey, labels.volume.voxels, source.labels, cutting.dynamic_range_db)
    window = Window(0.0, 255.0, "tissues", notes=() if own is None else own.notes)
    return Opened(replace(volume, voxels=painted), window, labels)


def _load(ref: VolumeRef) -> Volume:
    with limited_memory(ref.max_memory):
        return get_source(ref.source).load(ref)
