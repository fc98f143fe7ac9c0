"""Progress on a terminal: messages on lines of their own, count and time at every width; plain lines elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ussim.commands import bars, console
from ussim.commands.bars import Bar, clock, layout

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ("step 500: loss 0.1234, held out 0.1234 and 21.33 dB", "a [bold]second[/bold] one, " + "long " * 20 + "end")


@pytest.mark.parametrize("description", ["training", "reading volumes of a very long name", "Übersicht 超声"])
@pytest.mark.parametrize("counts", [("123456/700000", "17 %"), ("45 %",), ("",)])
def test_the_line_fits_and_keeps_count_and_time(description, counts):
    for width in (*range(1, 61), 80, 200):
        check_line(width, description, counts)


def check_line(width, description, counts):
    from rich.cells import cell_len

    before, cells, after = layout(width, description, counts, "1262:12:04 left", "loss 0.1234, 3.21 it/s")
    parts = [before, "━" * cells, after]
    assert cell_len(" ".join(part for part in parts if part)) <= width
    if width >= 40:
        assert counts[0] in after
        assert "1262:12:04 left" in after
    if width >= 20 and counts[-1]:
        assert counts[-1] in after or counts[0] in after
        assert "1262:12:04" in after
    if width >= 80 and description == "training":
        assert (before, after) == (description, f"{counts[0]} 1262:12:04 left loss 0.1234, 3.21 it/s".strip())
        assert cells >= 8
    if width == 60 and description == "training" and len(counts) > 1:
        assert after.endswith("left loss 0.1234")


def test_clock():
    assert [clock(s) for s in (-1, 0, 61, 3600 * 1262 + 724)] == ["0:00:00", "0:00:00", "0:01:01", "1262:12:04"]


def test_time_left_goes_by_the_steps_of_this_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ussim.commands.bars.time.monotonic", lambda: now[0])
    bar = Bar("training", total=1000, done=900)
    assert bar.timing() == "0:00:00"
    now[0] = 150.0
    bar.update(925, 1000)  # 25 steps in 50 s: 75 take 150 s
    assert bar.timing() == "0:02:30 left"
    now[0] = 160.0  # between two steps it counts down
    assert bar.timing() == "0:02:20 left"
    bar.update(1000, 1000)
    assert bar.timing() == "0:01:00"


class Screen:
    """What a terminal of some width shows of what it is sent: enough of it for a line that is drawn again."""

    def __init__(self, width):
        self.width, self.lines, self.row, self.column = width, [""], 0, 0
        self.drawn = set()  # every state of the last line

    def feed(self, text):
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\r\n\x1b]+", text):
            if piece == "\n":
                self._down()
            elif piece == "\r":
                self.drawn.add(self.lines[-1])
                self.column = 0
            elif piece == "\x1b[2K":
                self.lines[self.row] = ""
            elif piece == "\x1b[1A":
                self.row -= 1
            elif not piece.startswith("\x1b"):
                for character in piece:
                    self._put(character)

    def _put(self, character):
        if self.column == self.width:
            self._down()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _down(self):
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")


PROGRAM = """
import sys, time
from ussim.commands import console
with console.Progress("training", 20000, 120) as bar:
    for k in range(8):
        time.sleep(0.1)
        bar.advance(note="loss 0.1234, 3.21 it/s")
        if k == 2:
            console.note({0!r})
        if k == 4:
            console.warn({1!r})
            print("by another", file=sys.stderr)
            console.result("result")
with console.working("simulating the phantom"):
    console.note("within")
with console.tracking("imaging") as report:
    report(1, 4)
    console.note("a quarter")
"""


def on_terminal(width):
    """What a terminal shows of PROGRAM."""
    screen = Screen(width)
    screen.feed(sent_to_terminal(width, PROGRAM.format(*MESSAGES)))
    return screen


def sent_to_terminal(width, program, **variables):
    """Return what a program sends to a terminal of some width."""
    import fcntl
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm"} | variables
    command, sent = [sys.executable, "-c", program], b""
    with subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment, cwd=ROOT) as process:
        os.close(side)
        while True:
            try:
                some = os.read(main, 65536)
            except OSError:  # the other side was closed
                break
            sent += some
    os.close(main)
    assert process.returncode == 0
    return sent.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_messages_stand_above_the_line_at_every_width(width):
    screen = on_terminal(width)
    shown = [line.rstrip() for line in screen.lines]
    for message in (MESSAGES[0], f"warning: {MESSAGES[1]}", "by another", "result", "within", "a quarter"):
        pieces = [message[k : k + width].rstrip() for k in range(0, len(message), width)]
        places = [k for k in range(len(shown)) if shown[k : k + len(pieces)] == pieces]
        assert len(places) == 1, (message, shown)
    left = [line for line in shown if "128" in line]
    assert len(left) == 1  # one line per piece of work is left
    assert shown.index("result") < shown.index(left[0])
    for line in screen.drawn:
        if "12" in line and "/20000" in line:
            assert re.search(r"12\d/20000 \d+:\d\d:\d\d", line), line
    assert any(re.search(r"12\d/20000 \d:\d\d:\d\d", line) for line in screen.drawn)
    if width >= 40:
        assert re.search(r"128/20000 \d:\d\d:\d\d left", left[0])
    if width >= 80:
        assert "loss 0.1234, 3.21 it/s" in left[0]


def test_an_error_ends_the_bar_of_its_work(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    @click.command()
    def broken():
        console.Progress("samples", 10).__enter__().advance()
        raise ValueError("expected something else")

    assert console.run(broken, "broken", []) == 2
    said = capsys.readouterr().err
    assert said.index("\x1b[?25h") < said.index("broken: error: expected something else")  # the cursor is shown again
    assert not bars.say("anything")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_dumb_terminal_gets_plain_lines():
    sent = sent_to_terminal(80, PROGRAM.format(*MESSAGES), TERM="dumb")
    assert "\x1b" not in sent
    assert re.search(r"\d\d:\d\d:\d\d training: 128/20000 \(1 %\), .* left\r\n", sent)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_loaded_is_said_at_once_and_wiped(width):
    program = """
import time, click
from ussim.commands import console, grammar
@click.command(cls=grammar.Command, loads="PyTorch")
def slow():
    time.sleep(0.1)
    console.note("ready")
console.run(slow, "slow", [])
"""
    sent = sent_to_terminal(width, program)
    assert sent.startswith("loading PyTorch...\r\x1b[2K")
    screen = Screen(width)
    screen.feed(sent)
    assert [line.rstrip() for line in screen.lines if line.strip()] == ["ready"]


def test_elsewhere_there_are_plain_lines():
    command = [sys.executable, "-c", PROGRAM.format(*MESSAGES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "result\n"
    lines = done.stderr.splitlines()
    at_work = [re.sub(r"^\d\d:\d\d:\d\d ", "at ", line) for line in lines[:4]]  # by another: not ours to date
    assert at_work[:3] == [f"at {MESSAGES[0]}", f"at warning: {MESSAGES[1]}", "by another"]
    assert re.match(r"at training: 128/20000 \(1 %\), .* left$", at_work[3])
    assert lines[4:] == ["simulating the phantom", "within", "imaging", "a quarter"]
