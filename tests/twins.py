"""The same channel data in the files of others, written from the public description of each format and by none of our code.

Each writer takes an acquisition of plane waves from a flat array whose time 0 is when the wave passes the array's center
("center"), and samples (n_frames, n_transmits, n_elements, n_samples), real or complex, sample 0 taken at `start`.
"""

from __future__ import annotations

import h5py
import numpy as np


def first_firing(acquisition):
    """When the first element fires, on a clock that begins with the passage through the center, (n_transmits,) s."""
    x, angles = acquisition.probe.element_x, acquisition.waves.angles
    return (x * np.sin(angles)[:, None]).min(axis=1) / acquisition.medium.speed_of_sound


def picmus(path, acquisition, samples, rate, start, carrier=0.0):
    probe = acquisition.probe
    with h5py.File(path, "w") as file:
        group = file.create_group("US/US_DATASET0000")
        frames = samples[0] if len(samples) == 1 else samples
        group["data/real"] = np.real(frames).astype(np.float32)
        group["data/imag"] = np.imag(frames).astype(np.float32)
        group["angles"] = acquisition.waves.angles
        group["sampling_frequency"] = [rate]
        group["sound_speed"] = [acquisition.medium.speed_of_sound]
        group["initial_time"] = [start]
        group["modulation_frequency"] = [carrier]
        group["PRF"] = [100.0]
        group["probe_geometry"] = np.stack([probe.element_x, 0 * probe.element_x, 0 * probe.element_x])


def zea(path, acquisition, samples, rate, start, carrier=0.0, legacy=False, compression=None):
    probe, speed = acquisition.probe, acquisition.medium.speed_of_sound
    n_frames, n_transmits, _, n_samples = samples.shape
    first = first_firing(acquisition)
    delays = probe.element_x * np.sin(acquisition.waves.angles)[:, None] / speed - first[:, None]
    peak = 1 / probe.center_frequency
    raw = samples.transpose(0, 1, 3, 2)[..., None]
    if carrier:  # IQ is counted from sample 0
        raw = raw * np.exp(2j * np.pi * carrier * start)
        raw = np.concatenate([raw.real, raw.imag], axis=-1)
    single = np.float32
    scan = {
        "sampling_frequency": single(rate),
        "center_frequency": single(probe.center_frequency),
        "demodulation_frequency": single(carrier or probe.center_frequency),
        "initial_times": (start - first + peak).astype(single),
        "t0_delays": delays.astype(single),
        "tx_apodizations": np.ones((n_transmits, probe.n_elements), single),
        "focus_distances": np.full(n_transmits, np.inf, single),
        "transmit_origins": np.zeros((n_transmits, 3), single),
        "polar_angles": acquisition.waves.angles.astype(single),
        "sound_speed": single(speed),
    }
    geometry = np.stack([probe.element_x, 0 * probe.element_x, 0 * probe.element_x], axis=1).astype(single)
    about = {
        "probe_geometry": geometry,
        "probe_center_frequency": single(probe.center_frequency),
        "probe_bandwidth_percent": single(100 * probe.bandwidth),
        "element_width": single(probe.element_width),
        "name": "a probe of one's own",
    }
    with h5py.File(path, "w") as file:
        if legacy:
            track = file
            scan |= {"n_frames": n_frames, "n_ax": n_samples, "probe_geometry": geometry}
        else:
            file.attrs["zea_version"] = "0.1.8"
            track = file.create_group("tracks/track_0")
            for name, value in about.items():
                file[f"probe/{name}"] = value
        options = {"chunks": (1, *raw.shape[1:]), "compression": compression} if compression else {}
        track.create_dataset("data/raw_data", data=raw.astype(single), **options)
        for name, value in scan.items():
            track[f"scan/{name}"] = value


def uff(path, acquisition, samples, rate, start, carrier=0.0):
    probe = acquisition.probe

    def put(group, name, value, **attributes):
        item = group.create_dataset(name, data=value)
        for key, words in ({"class": "single", "name": name, "complex": [0], "imaginary": [0]} | attributes).items():
            item.attrs[key] = words

    def thing(group, name, kind, n=1):
        item = group.create_group(name)
        for key, words in {"class": kind, "name": name, "array": [int(n > 1)], "size": [1, n]}.items():
            item.attrs[key] = words
        return item

    with h5py.File(path, "w") as file:
        group = thing(file, "channel_data", "uff.channel_data")
        for name, value in (
            ("sampling_frequency", rate),
            ("initial_time", start),
            ("sound_speed", acquisition.medium.speed_of_sound),
            ("modulation_frequency", carrier),
        ):
            put(group, name, [[value]])
        pulse = thing(group, "pulse", "uff.pulse")
        put(pulse, "center_frequency", [[probe.center_frequency]])
        put(pulse, "fractional_bandwidth", [[probe.bandwidth]])
        array = thing(group, "probe", "uff.linear_array")
        put(array, "N", [[float(probe.n_elements)]])
        put(array, "pitch", [[probe.pitch]])
        table = np.zeros((7, probe.n_elements))
        table[0], table[5], table[6] = probe.element_x, probe.element_width, 5e-3
        put(array, "geometry", table)
        sequence = thing(group, "sequence", "uff.wave", len(acquisition.waves.angles))
        for i, angle in enumerate(acquisition.waves.angles):
            wave = thing(sequence, f"sequence_{i + 1:04d}", "uff.wave")
            put(wave, "wavefront", [[0]])
            put(wave, "delay", [[0.0]])
            source = thing(wave, "source", "uff.point")
            for name, value in (("distance", np.inf), ("azimuth", angle), ("elevation", 0.0)):
                put(source, name, [[value]])
        if carrier:
            data = thing(group, "data", "single")
            data.attrs["complex"] = [1]
            put(data, "real", samples.real.astype(np.float32))
            put(data, "imag", samples.imag.astype(np.float32), imaginary=[1])
        else:
            put(group, "data", samples.astype(np.float32))


def param_of(acquisition, rate, start):
    """MUST's parameters: delays may begin anywhere, here where the wave passes the center; t0 is on their clock."""
    probe = acquisition.probe
    delays = probe.element_x * np.sin(acquisition.waves.angles)[:, None] / acquisition.medium.speed_of_sound
    return {
        "fs": rate,
        "fc": probe.center_frequency,
        "c": acquisition.medium.speed_of_sound,
        "pitch": probe.pitch,
        "Nelements": float(probe.n_elements),
        "width": probe.element_width,
        "bandwidth": 100 * probe.bandwidth,
        "TXdelay": delays,
        "t0": start,
    }


def must(path, acquisition, samples, rate, start, carrier=0.0):
    from scipy.io import savemat

    array = samples.transpose(3, 2, 1, 0)  # samples, elements, transmits, frames
    savemat(path, {"IQ" if carrier else "RF": array, "param": param_of(acquisition, rate, start), "note": "text"})


def must_hdf5(path, acquisition, samples, rate, start, carrier=0.0):
    """Version 7.3: HDF5 after 512 bytes of MATLAB's own, axes in reverse, complex numbers in pairs."""
    with h5py.File(path, "w", userblock_size=512) as file:
        array = samples.transpose(0, 1, 2, 3)
        if carrier:
            pairs = np.zeros(array.shape, [("real", np.float32), ("imag", np.float32)])
            pairs["real"], pairs["imag"] = array.real, array.imag
            array = pairs
        name = "IQ" if carrier else "RF"
        file[name] = array
        file[name].attrs["MATLAB_class"] = np.bytes_("single")
        group = file.create_group("param")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, value in param_of(acquisition, rate, start).items():
            group[key] = np.atleast_2d(value).T
            group[key].attrs["MATLAB_class"] = np.bytes_("double")
        file["note"] = np.array([[ord(c)] for c in "text"], np.uint16)
        file["note"].attrs["MATLAB_class"] = np.bytes_("char")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


FORMATS = {
    "picmus": (picmus, ".hdf5"),
    "zea": (zea, ".hdf5"),
    "uff": (uff, ".uff"),
    "must": (must, ".mat"),
    "must 7.3": (must_hdf5, ".mat"),
}
