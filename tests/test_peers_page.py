"""docs/peers.md: each name in its tables is one of the package that it is said to be of."""

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "peers.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ")]
OURS = sorted(set(re.findall(r"`((?:ussim|datagen|irsde)(?:\.\w+)+)`", "\n".join(ROWS))))
PEERS = ("pymust", "zea", "ustb", "pyuff_ustb")
THEIRS = sorted(set(re.findall(rf"`((?:{'|'.join(PEERS)})(?:\.\w+)+)`", "\n".join(ROWS))))
OPTIONS = {  # of MUST's param -> where it is here
    "Probe": {"center_frequency", "bandwidth", "n_elements", "pitch", "element_width", "radius", "baffle",
              "element_height", "elevation_focus"},
    "Medium": {"speed_of_sound", "attenuation_db_cm_mhz"},
    "Acquisition": {"sampling_frequency", "n_cycles", "frequency_sweep", "receive_delays", "threshold_db",
                    "full_frequency_directivity", "n_subelements", "waveform", "impulse_response"},
}  # fmt: skip


def look_up(name):
    """Import a dotted name: the longest module, then attributes."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", OURS)
def test_a_name_of_ours_is_there(name):
    assert look_up(name) is not None


@pytest.mark.parametrize("name", OPTIONS)
def test_a_field_is_there(name):
    from dataclasses import fields

    import ussim

    there = {field.name for field in fields(getattr(ussim, name))}
    assert OPTIONS[name] <= there
    assert all(re.search(rf"\b{field}\b", PAGE) for field in OPTIONS[name])


@cache
def sources_of(package):
    """Return the names that a package defines, read and not run: zea wants Keras and one of its backends."""
    griffe = pytest.importorskip("griffe")
    return griffe.load(package, allow_inspection=False, resolve_aliases=True)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", THEIRS)
def test_a_name_of_theirs_is_there(name):
    package, _, rest = name.partition(".")
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if package == "zea":
        found = sources_of(package)[rest]
        assert found.final_target if found.is_alias else found
    else:
        assert look_up(name) is not None


def test_the_tables_name_what_there_is():
    assert len(OURS) > 30
    assert {name.split(".")[0] for name in THEIRS} == set(PEERS)
