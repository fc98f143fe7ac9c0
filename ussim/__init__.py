"""Ultrasound simulation and imaging: scatterers, channel data, demodulation, delay-and-sum, B-mode.

    image ─► scatterers_from_image ─► simulate ─► demodulate ─► delay_and_sum ─► log_compress ─► B-mode

Names are imported when first used, so that `import ussim` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lazy import attach

__version__ = "0.1.0"

_HOME = {
    "Acquisition": "acquisition",
    "Calibration": "calibration.result",
    "CoherenceFactor": "beamforming.adaptive",
    "ElementErrors": "imperfections",
    "GeneralizedCoherenceFactor": "beamforming.adaptive",
    "MinimumVariance": "beamforming.adaptive",
    "DelayMultiplyAndSum": "beamforming.adaptive",
    "PhaseScreen": "imperfections",
    "ReceiveChain": "chain",
    "ShortLagSpatialCoherence": "beamforming.adaptive",
    "PointGrid": "beamforming.grids",
    "ChannelDataFile": "io.channel_data",
    "TimeGain": "chain",
    "TimeZero": "time_zero",
    "apply_receive_chain": "receive",
    "apply_time_gain": "receive",
    "check_time_zero": "time_zero",
    "CustomTransmits": "transmits",
    "DepthResolution": "lobes",
    "DivergingWaves": "transmits",
    "DataError": "errors",
    "EngineError": "errors",
    "FocusedWaves": "transmits",
    "IQData": "types",
    "ImpulseResponse": "waveforms",
    "ImageGrid": "types",
    "Imaging": "probes",
    "MatrixProbe": "probes",
    "Medium": "medium",
    "Motion": "motion",
    "MovingScatterers": "motion",
    "PlaneWaves": "transmits",
    "PolarGrid": "beamforming.scan_convert",
    "Probe": "probes",
    "ProbeError": "probes",
    "RFData": "types",
    "Scatterers": "types",
    "SyntheticAperture": "transmits",
    "Waveform": "waveforms",
    "beam_directions": "doppler",
    "bmode": "imaging",
    "calibrate": "calibration.run",
    "color_doppler": "doppler",
    "delay_and_sum": "beamform",
    "demodulate": "demodulation",
    "echo_frequency": "doppler",
    "envelope": "beamform",
    "envelope_image": "imaging",
    "field_mask": "beamform",
    "focused_scan": "transmits",
    "ImagingOperator": "operator",
    "imaging_operator": "operator",
    "imaging_waves": "transmits",
    "load_channel_data": "io.channel_data",
    "load_probe": "probes",
    "log_compress": "beamform",
    "matched_filter": "compression",
    "nyquist_velocity": "doppler",
    "open_channel_data": "io.channel_data",
    "power_doppler": "doppler",
    "pressure_field": "simulation",
    "probe_names": "probes",
    "pulse": "pulses",
    "resolution_over_depth": "lobes",
    "scan_convert": "beamforming.scan_convert",
    "scatterers_from_image": "scatterers",
    "simulate": "simulation",
    "simulate_batch": "simulation",
    "simulate_frames": "motion",
    "simulate_stack": "simulation",
    "UssimError": "errors",
    "time_gain_compensation": "receive",
    "to_polar": "beamforming.scan_convert",
    "track_speckle": "tracking",
    "vector_doppler": "doppler",
    "velocity_from_beams": "doppler",
    "velocity_spread": "doppler",
    "wall_filter": "doppler",
    "wave_field": "propagation",
    "with_steering_speed": "acquisition",
}
_MODULES = {"flow": "flow", "phantoms": "phantoms"}
__all__ = [
    "Acquisition",
    "Calibration",
    "ChannelDataFile",
    "CoherenceFactor",
    "CustomTransmits",
    "DataError",
    "DelayMultiplyAndSum",
    "DepthResolution",
    "DivergingWaves",
    "ElementErrors",
    "EngineError",
    "FocusedWaves",
    "GeneralizedCoherenceFactor",
    "IQData",
    "ImageGrid",
    "Imaging",
    "ImagingOperator",
    "ImpulseResponse",
    "MatrixProbe",
    "Medium",
    "MinimumVariance",
    "Motion",
    "MovingScatterers",
    "PhaseScreen",
    "PlaneWaves",
    "PointGrid",
    "PolarGrid",
    "Probe",
    "ProbeError",
    "RFData",
    "ReceiveChain",
    "Scatterers",
    "ShortLagSpatialCoherence",
    "SyntheticAperture",
    "TimeGain",
    "TimeZero",
    "UssimError",
    "Waveform",
    "apply_receive_chain",
    "apply_time_gain",
    "beam_directions",
    "bmode",
    "calibrate",
    "check_time_zero",
    "color_doppler",
    "delay_and_sum",
    "demodulate",
    "echo_frequency",
    "envelope",
    "envelope_image",
    "field_mask",
    "flow",
    "focused_scan",
    "imaging_operator",
    "imaging_waves",
    "load_channel_data",
    "load_probe",
    "log_compress",
    "matched_filter",
    "nyquist_velocity",
    "open_channel_data",
    "phantoms",
    "power_doppler",
    "pressure_field",
    "probe_names",
    "pulse",
    "resolution_over_depth",
    "scan_convert",
    "scatterers_from_image",
    "simulate",
    "simulate_batch",
    "simulate_frames",
    "simulate_stack",
    "time_gain_compensation",
    "to_polar",
    "track_speckle",
    "vector_doppler",
    "velocity_from_beams",
    "velocity_spread",
    "wall_filter",
    "wave_field",
    "with_steering_speed",
]

if TYPE_CHECKING:
    from . import flow, phantoms
    from .acquisition import Acquisition, with_steering_speed
    from .beamform import delay_and_sum, envelope, field_mask, log_compress
    from .beamforming.adaptive import (
        CoherenceFactor,
        DelayMultiplyAndSum,
        GeneralizedCoherenceFactor,
        MinimumVariance,
        ShortLagSpatialCoherence,
    )
    from .beamforming.grids import PointGrid
    from .beamforming.scan_convert import PolarGrid, scan_convert, to_polar
    from .calibration.result import Calibration
    from .calibration.run import calibrate
    from .chain import ReceiveChain, TimeGain
    from .compression import matched_filter
    from .demodulation import demodulate
    from .doppler import (
        beam_directions,
        color_doppler,
        echo_frequency,
        nyquist_velocity,
        power_doppler,
        vector_doppler,
        velocity_from_beams,
        velocity_spread,
        wall_filter,
    )
    from .errors import DataError, EngineError, UssimError
    from .imaging import bmode, envelope_image
    from .imperfections import ElementErrors, PhaseScreen
    from .io.channel_data import ChannelDataFile, load_channel_data, open_channel_data
    from .lobes import DepthResolution, resolution_over_depth
    from .medium import Medium
    from .motion import Motion, MovingScatterers, simulate_frames
    from .operator import ImagingOperator, imaging_operator
    from .probes import Imaging, MatrixProbe, Probe, ProbeError, load_probe, probe_names
    from .propagation import wave_field
    from .pulses import pulse
    from .receive import apply_receive_chain, apply_time_gain, time_gain_compensation
    from .scatterers import scatterers_from_image
    from .simulation import pressure_field, simulate, simulate_batch, simulate_stack
    from .time_zero import TimeZero, check_time_zero
    from .tracking import track_speckle
    from .transmits import (
        CustomTransmits,
        DivergingWaves,
        FocusedWaves,
        PlaneWaves,
        SyntheticAperture,
        focused_scan,
        imaging_waves,
    )
    from .types import ImageGrid, IQData, RFData, Scatterers
    from .waveforms import ImpulseResponse, Waveform
else:  # what is not listed above is unknown to a type checker
    __getattr__, __dir__ = attach(__name__, _HOME, _MODULES)
