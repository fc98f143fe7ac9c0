"""Run a program of this project where packages are not installed, or on a system that is not POSIX:

python tests/without.py torch,pywt irsde train --data pairs.zarr --out run
python tests/without.py posix datagen build --source demo --probe C5-2v --out pairs.zarr
"""

from __future__ import annotations

import builtins
import sys
from importlib import import_module
from importlib.machinery import PathFinder

POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
OURS = {"ussim", "datagen", "irsde"}
PROGRAMS = {"ussim": "ussim.commands.cli", "datagen": "datagen.cli", "irsde": "irsde.cli"}


def uninstall(names: set[str]) -> None:
    """Have the packages found by nobody: `import` and `find_spec` answer as where they were never installed."""

    class Finder(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            return None if fullname.partition(".")[0] in names else PathFinder.find_spec(fullname, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Finder


def leave_posix() -> None:
    """Refuse the modules of POSIX to this project's own code; the standard library here is built on them."""
    plain = builtins.__import__

    def import_(name, globals=None, locals=None, fromlist=(), level=0):
        if name.partition(".")[0] in POSIX and str((globals or {}).get("__name__")).partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return plain(name, globals, locals, fromlist, level)

    builtins.__import__ = import_


def main() -> None:
    names, program, *arguments = sys.argv[1:]
    if names == "posix":
        leave_posix()
    else:
        uninstall(set(names.split(",")))
    sys.argv = [program, *arguments]
    import_module(PROGRAMS[program]).main()


if __name__ == "__main__":
    main()
