"""An acquisition as plain values, as JSON and a store's attributes hold them.

Every number comes back exactly: JSON holds the shortest text that reads back to the same float64. Numbers that JSON has no
word for are the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from ..acquisition import HIGHEST_THRESHOLD_DB, Acquisition
from ..chain import ReceiveChain, TimeGain
from ..imperfections import ElementErrors, PhaseScreen
from ..medium import Medium
from ..probes import Imaging, MatrixProbe, Probe
from ..transmits import CustomTransmits, DivergingWaves, FocusedWaves, PlaneWaves, SyntheticAperture, Waves
from ..waveforms import ImpulseResponse, Waveform

SIGNALS = {"waveform": Waveform, "impulse_response": ImpulseResponse}
# Parts of an acquisition that are values of their own.
PARTS = {"aberration": PhaseScreen, "element_errors": ElementErrors, "receive_chain": ReceiveChain}
# Fields that older files do not have.
OPTIONAL = ("transmit_frequency", "waveform", "impulse_response", "receive_mask", *PARTS)
WAVES = {kind.__name__: kind for kind in (PlaneWaves, DivergingWaves, FocusedWaves, CustomTransmits, SyntheticAperture)}


def acquisition_to_dict(acquisition: Acquisition) -> dict[str, Any]:
    """Return the acquisition as dicts, lists, strings and numbers that JSON can hold; `acquisition_from_dict` gives it back.

    Raises
    ------
    ValueError
        Its waves are of a class of one's own: give their delays as CustomTransmits.
    """
    plain = {
        f.name: to_plain(getattr(acquisition, f.name))
        for f in fields(Acquisition)
        if f.init and f.name not in (*SIGNALS, *PARTS)
    }
    for name in OPTIONAL:  # left out where not given: files of before and after are the same
        if name in plain and plain[name] is None:
            del plain[name]
    for name in SIGNALS:
        signal = getattr(acquisition, name)
        if signal is not None:
            plain[name] = {f.name: to_plain(getattr(signal, f.name)) for f in fields(signal)}
    for name in PARTS:
        part = getattr(acquisition, name)
        if part is not None:
            plain[name] = _part_to_dict(part)
    plain["probe"] = probe_to_dict(acquisition.probe)
    plain["waves"] = _waves_to_dict(acquisition.waves)
    medium = {f.name: to_plain(getattr(acquisition.medium, f.name)) for f in fields(Medium)}
    if medium["backscatter_exponent"] == 0:
        del medium["backscatter_exponent"]  # as files before it
    plain["medium"] = medium
    return plain


def acquisition_from_dict(plain: Mapping[str, Any]) -> Acquisition:
    """Return the acquisition that `acquisition_to_dict` described.

    Raises
    ------
    ValueError
        A key is missing or unknown, or a value is out of range.
    """
    _check_keys("acquisition", plain, {f.name for f in fields(Acquisition)}, required=("probe", "waves", "medium"))
    values = {
        key: to_array(value)
        for key, value in plain.items()
        if key not in ("probe", "waves", "medium", *SIGNALS, *PARTS)
    }
    for name, kind in SIGNALS.items():
        if plain.get(name) is not None:
            _check_keys(name, plain[name], {f.name for f in fields(kind)}, required=("samples", "rate"))
            values[name] = kind(**{key: to_array(value) for key, value in plain[name].items()})
    for name, part in PARTS.items():
        if plain.get(name) is not None:
            values[name] = _part_from_dict(name, part, plain[name])
    if "threshold_db" in values:  # earlier releases took higher ones; recorded samples do not depend on it
        values["threshold_db"] = min(values["threshold_db"], HIGHEST_THRESHOLD_DB)
    _check_keys("medium", plain["medium"], {f.name for f in fields(Medium)})
    medium = Medium(**{key: to_array(value) for key, value in plain["medium"].items()})
    return Acquisition(probe_from_dict(plain["probe"]), _waves_from_dict(plain["waves"]), medium, **values)


def _part_to_dict(part: Any) -> dict[str, Any]:
    """Return a part's values; None is left out."""
    values = {f.name: getattr(part, f.name) for f in fields(part)}
    return {
        name: _part_to_dict(value) if isinstance(value, TimeGain) else to_plain(value)
        for name, value in values.items()
        if value is not None
    }


def _part_from_dict(name: str, kind: type[Any], plain: Any) -> Any:
    """Return the part that `_part_to_dict` described; raises ValueError."""
    required = tuple(f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING)
    _check_keys(name, plain, {f.name for f in fields(kind)}, required)
    values = {key: to_array(value) for key, value in plain.items() if key != "time_gain"}
    if plain.get("time_gain") is not None:
        values["time_gain"] = _part_from_dict("time_gain", TimeGain, plain["time_gain"])
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def probe_to_dict(probe: Probe) -> dict[str, Any]:
    """Return the probe as plain values, without the place on this machine that it was read from."""
    plain = {f.name: to_plain(getattr(probe, f.name)) for f in fields(probe) if f.name not in ("imaging", "path")}
    if probe.imaging is not None:
        plain["imaging"] = {f.name: to_plain(getattr(probe.imaging, f.name)) for f in fields(Imaging)}
    return plain


def probe_from_dict(plain: Mapping[str, Any]) -> Probe:
    """Return the probe that `probe_to_dict` described. Raises ValueError as `acquisition_from_dict` does."""
    kind = MatrixProbe if isinstance(plain, Mapping) and "n_rows" in plain else Probe
    _check_keys("probe", plain, {f.name for f in fields(kind)}, required=("name", "center_frequency"))
    values: dict[str, Any] = {key: value for key, value in plain.items() if key != "imaging"}
    for key, value in values.items():  # strings that stand for numbers; the probe's own words stay
        if isinstance(value, str) and key not in ("name", "source", "baffle"):
            values[key] = float(value)
    if values.get("baffle") == "inf":
        values["baffle"] = math.inf
    imaging = plain.get("imaging")
    if imaging is not None:
        _check_keys("probe.imaging", imaging, {f.name for f in fields(Imaging)}, required=("x", "z"))
        values["imaging"] = Imaging(**dict(imaging) | {axis: tuple(imaging[axis]) for axis in ("x", "z")})
    return kind(**values)


def _waves_to_dict(waves: Waves) -> dict[str, Any]:
    kind = type(waves).__name__
    if WAVES.get(kind) is not type(waves):
        raise ValueError(
            f"waves: expected one of {', '.join(WAVES)}, got {kind}. Describe them by their delays: "
            "CustomTransmits(waves.delays(probe, medium), waves.apodization)"
        )
    if isinstance(waves, CustomTransmits):  # `delays` is its method: the times as given have another name
        values = {"delays": waves._delays, "apodization": waves.apodization, "time_reference": waves.time_reference}
    else:
        values = {f.name: getattr(waves, f.name) for f in fields(waves)}
    return {"kind": kind} | {key: to_plain(value) for key, value in values.items() if value is not None}


def _waves_from_dict(plain: Mapping[str, Any]) -> Waves:
    kind = WAVES.get(plain.get("kind", ""))
    if kind is None:
        raise ValueError(f"waves: kind: expected one of {', '.join(WAVES)}, got {plain.get('kind')!r}")
    known = {"delays" if f.name == "_delays" else f.name for f in fields(kind)}
    _check_keys("waves", plain, known | {"kind"})
    words = {"kind", "time_reference"}
    values: dict[str, Any] = {key: np.asarray(to_array(value)) for key, value in plain.items() if key not in words}
    if "time_reference" in known:
        values["time_reference"] = plain.get("time_reference", "first")  # what there was before it had a name
    return kind(**values)


def _check_keys(where: str, plain: Mapping[str, Any], known: set[str], required: tuple[str, ...] = ()) -> None:
    if not isinstance(plain, Mapping):
        raise ValueError(f"{where}: expected a table of values, got {type(plain).__name__}")
    for key in required:
        if key not in plain:
            raise ValueError(f"{where}: expected the key {key!r}, got {', '.join(plain) or 'none'}")
    for key in plain:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r} (known: {', '.join(sorted(known))})")


def to_plain(value: Any) -> Any:
    """Python's own numbers and lists; what JSON has no number for as text."""
    if isinstance(value, np.ndarray | tuple | list):
        return [to_plain(entry) for entry in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_array(value: Any) -> Any:
    """Return the inverse of `to_plain`: text to numbers, lists to float64 arrays."""
    if isinstance(value, list):
        return np.array([to_array(entry) for entry in value], dtype=np.float64)
    return float(value) if isinstance(value, str) else value
