"""Recordings that are damaged, or made to do harm: one clear line each, and no more memory than the file is worth."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import twins

import ussim
from ussim.io.channel_data import ChannelDataFile

PROBE = ussim.Probe("recorded", 5.208e6, 0.67, 32, 0.3e-3, 0.27e-3)
CENTERED = ussim.Acquisition(PROBE, ussim.PlaneWaves(np.deg2rad([-16.0, 0.0, 16.0]), time_reference="center"))
SAMPLES = np.random.default_rng(0).standard_normal((1, 3, 32, 200)).astype(np.float32)
MOST_MEMORY = 400 << 20  # bytes that reading any of these may add: the libraries themselves, and no array of a file


def npy_header(shape, dtype="<f4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write(name, **changes):
    """A writer of a twin, whose file `change` then spoils by h5py."""

    def make(path, change=None):
        writer, _ = twins.FORMATS[name]
        writer(path, CENTERED, changes.get("samples", SAMPLES), 20.8e6, 3e-6, changes.get("carrier", 0.0))
        if change is not None:
            with h5py.File(path, "r+") as file:
                change(file)

    return make


def spoiled(name, change, **changes):
    return lambda path: write(name, **changes)(path, change)


def cut(name, share):
    def make(path):
        write(name)(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])

    return make


def put(where, value):
    """Replace a data set."""

    def change(file):
        del file[where]
        file[where] = value

    return change


def remove(where):
    def change(file):
        del file[where]

    return change


def empty(where, shape, **options):
    """A data set of any size that is declared and not written."""

    def change(file):
        if where in file:
            del file[where]
        file.create_dataset(where, shape, np.float32, **options)

    return change


def bomb(where, shape):
    """A data set of zeros that a few bytes stand for: its chunks' addresses declared, one of them stored."""

    def change(file):
        del file[where]
        data = file.create_dataset(where, shape, np.float32, chunks=(1, *shape[1:]), compression="gzip")
        data.id.write_direct_chunk((0,) * len(shape), zlib.compress(b"\0" * 1000), 0)

    return change


def linked(where, target):
    def change(file):
        del file[where]
        file[where] = h5py.ExternalLink(*target)

    return change


def linked_twice(file):
    """A link in the file to one that leads out of it."""
    remove(f"{GROUP}/data/real")(file)
    file["out"] = h5py.ExternalLink("/etc/passwd", "/")
    file[f"{GROUP}/data/real"] = h5py.SoftLink("/out/x")


def outside(path):
    """Samples that lie in another file of this machine."""
    write("picmus")(path)
    secret = path.with_name("secret.bin")
    secret.write_bytes(SAMPLES[0].tobytes())
    with h5py.File(path, "r+") as file:
        del file["US/US_DATASET0000/data/real"]
        file.create_dataset(
            "US/US_DATASET0000/data/real", SAMPLES[0].shape, np.float32, external=[(str(secret), 0, SAMPLES[0].nbytes)]
        )


def virtual(path):
    write("picmus")(path)
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["rf"] = SAMPLES[0]
    layout = h5py.VirtualLayout(SAMPLES[0].shape, np.float32)
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "rf", SAMPLES[0].shape)
    with h5py.File(path, "r+") as file:
        del file["US/US_DATASET0000/data/real"]
        file.create_virtual_dataset("US/US_DATASET0000/data/real", layout)


def regrouped(file):
    """A group where the samples should be."""
    remove(f"{GROUP}/data/real")(file)
    file.create_group(f"{GROUP}/data/real")


def nan_samples(name):
    samples = SAMPLES.copy()
    samples[0, 1, 2, 3] = np.nan
    return write(name, samples=samples)


def swapped(path):
    write("uff", samples=SAMPLES.byteswap())(path)  # numbers of the other endianness, declared as ours


def text_file(path):
    path.write_text("sampling frequency 20.8 MHz\n" * 50)


def pickled(path):
    np.save(path, np.array([{"rm": "-rf"}], dtype=object), allow_pickle=True)


def npz_of(**members):
    def make(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(f"{name}.npy", content)

    return make


def npz_with_lie(path):
    """The archive's own notes say that 8 GB come out of 8 MB of zeros; the array says so too."""
    npz_of(rf=npy_header((2, 1 << 30)) + b"\0" * (8 << 20))(path)


def savemat(**values):
    def make(path):
        from scipy.io import savemat as save

        save(path, values)

    return make


def mat_with_shape(shape):
    """A version 5 file whose matrix declares another shape than it has."""

    def make(path):
        from scipy.io import savemat as save

        buffer = io.BytesIO()
        save(
            buffer, {"RF": SAMPLES[0, 0].T, "param": twins.param_of(CENTERED, 20.8e6, 0.0) | {"TXdelay": np.zeros(32)}}
        )
        whole = bytearray(buffer.getvalue())
        where = whole.index(struct.pack("<ii", 200, 32))
        whole[where : where + 8] = struct.pack("<ii", *shape)
        path.write_bytes(whole)

    return make


GROUP = "US/US_DATASET0000"
TRACK = "tracks/track_0"
FILES = {  # name: (suffix, writer, words of the message)
    "empty": (".hdf5", lambda path: path.write_bytes(b""), "an empty file"),
    "text as .hdf5": (".hdf5", text_file, "expected channel data"),
    "text as .mat": (".mat", text_file, "expected a .mat"),
    "text as .npy": (".npy", text_file, "expected channel data"),
    "text as .npz": (".npz", text_file, "another kind"),
    "bytes as .uff": (".uff", lambda path: path.write_bytes(os.urandom(3000)), "expected channel data"),
    "a signature alone": (".hdf5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), ""),
    "picmus cut at 30 %": (".hdf5", cut("picmus", 0.3), ""),
    "picmus cut at 99 %": (".hdf5", cut("picmus", 0.99), ""),
    "zea cut in half": (".hdf5", cut("zea", 0.5), ""),
    "uff cut in half": (".uff", cut("uff", 0.5), ""),
    "mat cut in half": (".mat", cut("must", 0.5), ""),
    "mat 7.3 cut in half": (".mat", cut("must 7.3", 0.5), ""),
    "picmus without angles": (".hdf5", spoiled("picmus", remove(f"{GROUP}/angles")), "angles"),
    "picmus of other angles": (
        ".hdf5",
        spoiled("picmus", put(f"{GROUP}/angles", [0.0, 0.1])),
        "32 elements and 2 angles",
    ),
    "picmus with NaN angles": (".hdf5", spoiled("picmus", put(f"{GROUP}/angles", [0.0, np.nan, 0.1])), "angles"),
    "picmus with text for a rate": (".hdf5", spoiled("picmus", put(f"{GROUP}/sampling_frequency", "fast")), "numbers"),
    "picmus of rate 0": (".hdf5", spoiled("picmus", put(f"{GROUP}/sampling_frequency", [0.0])), "sampling_frequency"),
    "picmus of NaN rate": (".hdf5", spoiled("picmus", put(f"{GROUP}/sampling_frequency", [np.nan])), "finite"),
    "picmus of speed 1.54": (".hdf5", spoiled("picmus", put(f"{GROUP}/sound_speed", [1.54])), "speed"),
    "picmus of half the imag": (
        ".hdf5",
        spoiled("picmus", put(f"{GROUP}/data/imag", np.ones((3, 32, 5))), carrier=5.2e6, samples=SAMPLES * (1 + 1j)),
        "data/imag",
    ),
    "picmus with a group for data": (".hdf5", spoiled("picmus", regrouped), ""),
    "picmus with elements at random": (
        ".hdf5",
        spoiled("picmus", put(f"{GROUP}/probe_geometry", np.random.default_rng(0).random((3, 32)) * 0.04)),
        "probe geometry",
    ),
    "picmus in mm": (
        ".hdf5",
        spoiled("picmus", put(f"{GROUP}/probe_geometry", np.outer([1, 0, 0], np.arange(32) * 0.3))),
        "",
    ),
    "NaN in picmus": (".hdf5", nan_samples("picmus"), "finite samples"),
    "NaN in zea": (".hdf5", nan_samples("zea"), "finite samples"),
    "NaN in mat": (".mat", nan_samples("must"), "finite samples"),
    "bytes in the wrong order": (".uff", swapped, "frame 0: expected"),
    "zea of 4 axes": (".hdf5", spoiled("zea", put(f"{TRACK}/data/raw_data", SAMPLES)), "data/raw_data: expected"),
    "zea of other delays": (".hdf5", spoiled("zea", put(f"{TRACK}/scan/t0_delays", np.zeros((3, 31)))), "t0_delays"),
    "zea without data": (".hdf5", spoiled("zea", remove(f"{TRACK}/data/raw_data")), "raw_data"),
    "zea of a matrix array": (
        ".hdf5",
        spoiled("zea", put("probe/probe_geometry", np.random.default_rng(0).random((32, 3)) * 0.02)),
        "matrix",
    ),
    "zea of many carriers": (
        ".hdf5",
        spoiled("zea", put(f"{TRACK}/scan/center_frequency", np.array([4e6, 5e6, 6e6]))),
        "center_frequency: expected one",
    ),
    "zea of 3 TB that are not there": (
        ".hdf5",
        spoiled("zea", empty(f"{TRACK}/data/raw_data", (1000, 3, 10**7, 32, 1), chunks=(1, 1, 1000, 32, 1))),
        "none are stored",
    ),
    "zea of a 12 GB frame in 30 bytes": (
        ".hdf5",
        spoiled("zea", bomb(f"{TRACK}/data/raw_data", (9, 3, 10**7, 32, 1))),
        "",
    ),
    "delays of 8 GB": (
        ".hdf5",
        spoiled("zea", empty(f"{TRACK}/scan/t0_delays", (1 << 31,), chunks=(1 << 20,))),
        "a table of at most",
    ),
    "a link to another file": (".hdf5", spoiled("picmus", linked(f"{GROUP}/data/real", ("/etc/passwd", "x"))), "link"),
    "a link to a link": (".hdf5", spoiled("picmus", linked_twice), "link"),
    "samples in another file": (".hdf5", outside, "in another one"),
    "a virtual data set": (".hdf5", virtual, "in another one"),
    "uff without waves": (".uff", spoiled("uff", remove("channel_data/sequence")), "sequence"),
    "uff with an elevation": (
        ".uff",
        spoiled("uff", put("channel_data/sequence/sequence_0001/source/elevation", [[0.2]])),
        "elevation",
    ),
    "uff with a NaN angle": (
        ".uff",
        spoiled("uff", put("channel_data/sequence/sequence_0001/source/azimuth", [[np.nan]])),
        "azimuth",
    ),
    "uff of a million elements": (
        ".uff",
        spoiled(
            "uff",
            lambda file: (remove("channel_data/probe/geometry")(file), put("channel_data/probe/N", [[1e9]])(file)),
        ),
        "probe/N",
    ),
    "a pickle": (".npy", pickled, "pickle"),
    "npy of 4 TB": (".npy", lambda path: path.write_bytes(npy_header((1 << 20, 1 << 20)) + b"\0" * 64), "declared"),
    "npy of a negative shape": (".npy", lambda path: path.write_bytes(npy_header((-5, 32)) + b"\0" * 64), ""),
    "npy of a shape beyond 64 bits": (".npy", lambda path: path.write_bytes(npy_header((1 << 70, 2))), "declared"),
    "npy header cut": (".npy", lambda path: path.write_bytes(npy_header((5, 32))[:40]), "expected an .npy array"),
    "npz of 8 GB in 8 KB": (".npz", npz_with_lie, "damaged"),
    "npz of a cut member": (".npz", npz_of(rf=npy_header((200, 32)) + b"\0" * 64), "damaged"),
    "mat without param": (".mat", savemat(RF=SAMPLES[0, 0].T), "arrays alone"),
    "mat with half a param": (".mat", savemat(RF=SAMPLES[0, 0].T, param={"fs": 2e7, "fc": 5e6}), "pitch"),
    "mat of text": (".mat", savemat(RF="none", param=twins.param_of(CENTERED, 2e7, 0.0)), "expected channel data"),
    "mat of other elements": (
        ".mat",
        savemat(RF=SAMPLES[0, 0, :30].T, param=twins.param_of(CENTERED, 2e7, 0.0)),
        "32 elements",
    ),
    "mat of absurd numbers": (
        ".mat",
        savemat(RF=SAMPLES[0, 0].T, param=twins.param_of(CENTERED, 2e7, 0.0) | {"pitch": 300.0}),
        "pitch",
    ),
    "mat that declares 16 GB": (".mat", mat_with_shape((1 << 27, 32)), ""),
    "mat that declares other axes": (".mat", mat_with_shape((-200, 32)), ""),
}


def test_there_are_forty_of_them():
    assert len(FILES) >= 40


def complaint(path):
    """What the library says of a file, or None where it reads it."""
    try:
        ussim.load_channel_data(path)
    except ussim.DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_told_in_one_line(tmp_path, name):
    suffix, make, words = FILES[name]
    path = tmp_path / f"bad{suffix}"
    make(path)
    said = complaint(path)
    assert said is not None, "was read"
    assert said.startswith(str(path)), said
    assert words in said, said
    assert "\n" not in said
    assert len(said) < 500 + len(str(path))


LIMITED = """
import resource, sys
import numpy, scipy.io, scipy.signal, h5py, ussim
ussim.load_channel_data, ussim.RFData
import ussim.io.formats.zea, ussim.io.formats.uff, ussim.io.formats.picmus, ussim.io.formats.must_mat, ussim.io.formats.npz
before = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + {most}, before + {most}))
for path in sys.argv[1:]:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        ussim.load_channel_data(path)
        print(path, "READ")
    except ussim.DataError as error:
        print(path, "out of memory" if "Memory" in str(error) or "allocate" in str(error) else "told")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    assert grown < {most} // 1024, (path, grown)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the address-space limit of Linux")
def test_no_bad_file_takes_memory(tmp_path):
    """All of them in one process that may have little: none is read, none ends it, none even asks for what it declares."""
    paths = []
    for i, (suffix, make, _) in enumerate(FILES.values()):
        folder = tmp_path / str(i)
        folder.mkdir()
        make(folder / f"bad{suffix}")
        paths.append(str(folder / f"bad{suffix}"))
    code = LIMITED.format(most=MOST_MEMORY)
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    assert [line for line in lines if not line.endswith("told")] == []


def test_every_byte_of_a_small_file_may_be_wrong(tmp_path):
    """Flipped bits anywhere in a file's description are told, or harmless; nothing but our error is raised."""
    rng = np.random.default_rng(1)
    for name, (writer, suffix) in twins.FORMATS.items():
        path = tmp_path / f"{name}{suffix}"
        writer(path, CENTERED, SAMPLES[..., :8], 20.8e6, 3e-6)
        whole = path.read_bytes()
        for position in rng.integers(0, len(whole), 60):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                file = ussim.open_channel_data(path)
                assert isinstance(file, ChannelDataFile)
                if file.n_frames < 100:
                    file.frame(0)
            except ussim.DataError:
                continue
