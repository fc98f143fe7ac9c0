"""All that a machine with an NVIDIA card can tell, by one command in under nine minutes: `make gpu OUT=folder`.

    card        what `ussim doctor` says of it, and nvidia-smi               -> card.json, card.txt
    tests       the cases of the default tests that ask for a card           -> tests.xml, tests.txt
    benchmark   benchmarks/gpu.py --tune, written after each of its parts    -> gpu.json, gpu.txt

A part that fails does not take the rest along, but the command then ends with 1; without a card it ends at once with 6. A
test that was skipped is a failure here: it has not looked at the card. The Python that runs this needs numpy, scipy, numba,
CuPy and pytest; the repository need not be installed.

`make gpu-check OUT=folder` runs every kernel once under compute-sanitizer (memcheck, racecheck, initcheck; CuPy's memory
pool off, so that each array has bounds of its own) and five kernels under Nsight Compute: memcheck.txt, ..., ncu.txt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY))

from timing import write_result  # noqa: E402

from ussim.engines.cuda.cupy import cuda_report  # noqa: E402

SECONDS = 520.0  # for all parts
TESTS = ("tests/test_engine_cuda.py", "tests/test_operator.py")
NO_CARD, FAILED = 6, 1
TOOLS = ("memcheck", "racecheck", "initcheck")
PROFILED = "transmit|receive|accumulate|delay_and_sum|mix_and_filter"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the results; made where it is missing")
    parser.add_argument(
        "--check", action="store_true", help="compute-sanitizer and Nsight Compute in place of the above"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together (default: %(default)g)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options.out, time.monotonic() + options.seconds)
    problem = run.card()
    if problem:
        print(f"gpu: error: {problem}", file=sys.stderr)
        return NO_CARD
    faults = run.check() if options.check else [*run.tests(), *run.benchmark()]
    for fault in faults:
        print(f"gpu: {fault}", file=sys.stderr)
    print(f"results: {options.out}")
    return FAILED if faults else 0


class Run:
    """The parts, each with what is left of the time. A part returns what is wrong, a line each."""

    def __init__(self, out: Path, deadline: float, report: Callable[[], dict] = cuda_report) -> None:
        self.out, self.deadline, self.report = out, deadline, report

    def card(self) -> str | None:
        """Write down the card; return why there is none to use."""
        report = self.report()
        write_result(self.out / "card.json", report)
        if shutil.which("nvidia-smi"):
            self.run("card", ["nvidia-smi"])
        for device in report["devices"]:
            memory = device["memory"] / 2**30
            print(f"{device['name']}, compute capability {device['compute_capability']}, {memory:.0f} GiB")
        return report["problem"]

    def tests(self, selection: Sequence[str] = ("-m", "gpu")) -> list[str]:
        """Run the tests on the card."""
        found = self.out / "tests.xml"
        found.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pytest", *TESTS, *selection, "-p", "no:cacheprovider", f"--junitxml={found}"]
        fault = self.run("tests", command)
        if not found.exists():
            return [fault or "tests: no result written"]
        return judge(found) or ([fault] if fault else [])

    def benchmark(self, *options: str) -> list[str]:
        """Time the engine."""
        output = self.out / "gpu.json"
        output.unlink(missing_ok=True)
        command = [sys.executable, str(HERE / "gpu.py"), "--tune", "--output", str(output), *options]
        fault = self.run("benchmark", command, "gpu.txt")
        return [fault] if fault else []

    def check(self) -> list[str]:
        """Look for wrong memory accesses, races and unset memory, and profile five kernels."""
        every = [sys.executable, str(HERE / "gpu.py"), "--every-kernel"]
        profile = ["ncu", "--kernel-name", f"regex:^({PROFILED})$", "--launch-count", "5", "--set", "basic"]
        commands = {tool: ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *every] for tool in TOOLS}
        commands["ncu"] = [*profile, *every]
        faults = [self.run(name, command) for name, command in commands.items()]
        return [fault for fault in faults if fault]

    def run(self, name: str, command: Sequence[str], log: str = "") -> str | None:
        """Run a command, its output on screen and in a log; return what went wrong."""
        if shutil.which(command[0]) is None:
            return f"{name}: {command[0]} is not installed"
        left = self.deadline - time.monotonic()
        if left <= 0:
            return f"{name}: no time left"
        path = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1"}
        with (self.out / (log or f"{name}.txt")).open("w", encoding="utf-8") as file:
            started = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
            try:
                code = started.wait(timeout=left)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
                code = None
        print("".join((self.out / (log or f"{name}.txt")).read_text(encoding="utf-8").splitlines(True)[-40:]), end="")
        if code is None:
            return f"{name}: not done when the time was over"
        return f"{name}: ended with {code}" if code else None


def judge(path: Path) -> list[str]:
    """Return what is wrong with a run of tests by its JUnit file: none ran, or some failed or were skipped."""
    count = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for key in count:
            count[key] += int(suite.get(key, 0))
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    print(
        f"tests on the card: {passed} passed, "
        + ", ".join(f"{count[key]} {key}" for key in ("failures", "errors", "skipped"))
    )
    faults = [f"tests: {count[key]} {key}" for key in ("failures", "errors", "skipped") if count[key]]
    return faults if passed or faults else ["tests: none ran"]


if __name__ == "__main__":
    sys.exit(main())
