"""Environments of the peers, one each, made when first asked for, in a cache folder: a peer never meets our packages.

python benchmarks/peers/environments.py          # makes all of them: 4 GB
USSIM_PEERS=FOLDER                               # elsewhere than ~/.cache/ussim/peers
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """Other toolkit: what pip installs, or why it can not be measured here."""

    requirements: tuple[str, ...] = ()
    missing: str = ""


PEERS = {
    "pymust": Peer(("pymust==0.1.9",)),
    "fastsimus": Peer(("fastsimus==0.0.1", "jax==0.10.2")),
    "zea": Peer(("zea==0.1.8", "jax==0.10.2")),
    "vbeam": Peer(("vbeam==1.0.10", "jax==0.10.2")),
    "ultraspy": Peer(("ultraspy==1.2.7",)),
    "ustb": Peer(("ustb==0.2.0",)),  # the port to Python
    "USTB": Peer(missing="a MATLAB toolbox; its port to Python is the row ustb"),
    "mach-beamform": Peer(missing="needs an NVIDIA card; none here"),
}


class NotInstalledError(Exception):
    """A peer whose environment cannot be made, with the reason."""


def folder() -> Path:
    """Return where the environments lie."""
    return Path(os.environ.get("USSIM_PEERS") or Path.home() / ".cache" / "ussim" / "peers")


def python_of(name: str) -> str:
    """Return the interpreter that has a peer, made if need be; this one for ussim."""
    if name == "ussim":
        return sys.executable
    peer = PEERS[name]
    if peer.missing:
        raise NotInstalledError(peer.missing)
    place = folder() / name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    record = place / "installed.txt"
    wanted = "\n".join(peer.requirements)
    if not (python.exists() and record.exists() and record.read_text() == wanted):
        _run([sys.executable, "-m", "venv", "--clear", str(place)], name)
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements], name)
        record.write_text(wanted)
    return str(python)


def _run(command: list[str], name: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstalledError(f"pip could not install {' '.join(PEERS[name].requirements)}: {(lines or ['?'])[-1]}")


def main() -> None:
    """Make every environment and say what each is."""
    for name in PEERS:
        try:
            print(f"{name}: {python_of(name)}")
        except NotInstalledError as error:
            print(f"{name}: {error}")


if __name__ == "__main__":
    main()
