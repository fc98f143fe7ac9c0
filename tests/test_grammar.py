"""One grammar for three programs: every parameter of every command, walked. Each failure says what to write instead."""

from __future__ import annotations

import importlib
import re

import click
import pytest

from ussim.commands import console, grammar

PROGRAMS = {"ussim": "ussim.commands.cli", "datagen": "datagen.cli", "irsde": "irsde.cli"}
WIDTH = 80  # columns of a terminal
MANY = 10  # options, from where on they stand under headings
# What a number may be called whose name does not end in its unit.
QUANTITIES = {"M/S", "DB/CM/MHZ", "FRACTION", "RATIO", "F", "RATE", "NORM", "EXPONENT", "SIGMA", "GB", "DB", "MM", "S"}
BRITISH = re.compile(
    r"\b\w*(colou?red|colour|centre|metre\b|licence|behaviour|favour|neighbour|modell|labell|fibre|analys(?=e)|"
    r"\w(?:al|ar|er|im|in|it|og|an)is(?:e|ed|es|ing|ation))\w*"
)
SHORT_FOR = {"num", "freq", "fs", "fc", "sos", "cfg", "param", "params", "lr", "bs", "dir", "img", "fnum", "dr", "att"}
OLD = {"--n-steps", "--n-seeds", "--sub-elements"}  # names that stand
FACTS = {"ussim probes", "ussim doctor", "datagen info", "datagen inspect", "datagen verify", "irsde models"}


def commands():
    """(name, command) of every command of the three programs."""
    for program, module in PROGRAMS.items():
        group = importlib.import_module(module).cli
        context = click.Context(group, info_name=program)
        for name in group.list_commands(context):
            yield f"{program} {name}", group.get_command(context, name)


COMMANDS = dict(commands())


def parameters(name):
    command = COMMANDS[name]
    context = click.Context(command, info_name=name, **console.SETTINGS)
    return [p for p in command.get_params(context) if isinstance(p, click.Option) and not p.hidden], context


def takes_a_number(option):
    return isinstance(option.type, click.IntRange | click.FloatRange | console.Number) or option.type in (
        click.INT,
        click.FLOAT,
    )


def is_whole(option):
    return isinstance(option.type, click.IntRange) or option.type is click.INT


def faults_of(option, context):
    """Yield what is out of line with an option, and what to do."""
    name, text = max(option.opts, key=len), option.help or ""
    if not re.fullmatch(r"(-\w|--[a-z0-9]+(-[a-z0-9]+)*)", name):
        yield "name it in lower case, words with hyphens between"
    if set(name.strip("-").split("-")) & SHORT_FOR or (name.startswith("--n-") and name not in OLD):
        yield "spell its name out (--sampling-mhz, not --fs; --samples, not --num-samples)"
    if not text:
        yield "give it help=: what it is, in a few words"
        return
    if not text.rstrip().endswith((".", "]", ")")):
        yield "end its help with a full stop"
    if BRITISH.search(text):
        yield f"American spelling, got {BRITISH.search(text)[0]!r}"
    if re.search(r"\bDefault:", text):
        yield 'write "  [default: ...]" at the end of its help, not "Default: ..."'
    if option.is_flag or option.count:
        if option.secondary_opts and option.default is None and "[default: " not in text:
            yield 'say what holds without it: help="...  [default: ...]"'
        return
    if option.metavar is None and not isinstance(option.type, click.Choice):
        yield "name its value: metavar=NAME, FILE, DIR, STORE, MM, RATIO ..."
    last = name.rpartition("-")[2]
    if (
        takes_a_number(option)
        and not is_whole(option)
        and last not in grammar.UNITS
        and option.metavar not in QUANTITIES
    ):
        yield (
            f"give its unit: end its name with one of {', '.join(grammar.UNITS)}, or metavar= one of "
            f"{', '.join(sorted(QUANTITIES))}"
        )
    shows_default = option.get_default(context) is not None or "[default: " in text or option.required
    if (takes_a_number(option) or isinstance(option.type, click.Choice)) and not shows_default:
        yield 'say what holds without it: default=..., or help="...  [default: ...]"'
    if option.multiple and "may repeat" not in text and "or more" not in text:
        yield 'say "may repeat" in its help'


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_line(name):
    options, context = parameters(name)
    found = [f"{name} {' '.join(o.opts)}: {fault}" for o in options for fault in faults_of(o, context)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_line(name):
    command, (options, _) = COMMANDS[name], parameters(name)
    by_name = {spelling: option for option in options for spelling in option.opts}
    assert isinstance(command, grammar.Command), "make it with @cli.command() or @click.command(cls=grammar.Command)"
    assert {"-v", "-q"} <= by_name.keys(), "add @console.verbose_option, the last decorator"
    assert re.search(rf"^ *{name}\b", command.help or "", re.MULTILINE), (
        "end its docstring with a command to copy, after \\b"
    )
    assert not BRITISH.search(command.help or ""), "American spelling"
    for row in grammar.SPELLINGS[:2]:
        assert not set(row) & by_name.keys() or set(row) <= by_name.keys()
    if "-o" not in by_name:
        assert not {"--out", "--output", "--to"} & by_name.keys()
    if "--depth-mm" in by_name:
        assert by_name["--depth-mm"].metavar == "LOW HIGH", "--depth-mm takes LOW HIGH in every command"
    if "--device" in by_name:
        assert by_name["--device"].default == "auto" or "auto" in by_name["--device"].help, '--device: default="auto"'
    if "--resume" in by_name:
        assert "--overwrite" in by_name, "what can be resumed can be overwritten: add --overwrite"
    if name in FACTS:
        assert "--json" in by_name, "it prints facts: add --json"
    own = [o for o in options if not grammar.GENERAL & set(o.opts)]
    if len(own) > MANY:
        bare = [o.opts[-1] for o in own if command.section_of(o) == "Options"]
        assert not bare, f'put @grammar.section("...") above them: {", ".join(bare)}'


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("width", [80, 120])
def test_short_summaries_fit_a_line(program, width):
    own = {name.partition(" ")[2]: command for name, command in COMMANDS.items() if name.startswith(program)}
    room = min(width, console.SETTINGS["max_content_width"]) - 2 - 2 - max(map(len, own)) - 2
    for name, command in own.items():
        short = command.get_short_help_str(1000)
        assert len(short) <= room, f"{program} {name}: give short_help= of at most {room} letters, got {short!r}"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_help_fits_the_terminal(name, width, monkeypatch):
    """Text that is set in one piece (a command to copy, a metavar of choices) may be longer."""
    program, _, command = name.partition(" ")
    group = importlib.import_module(PROGRAMS[program]).cli
    monkeypatch.setenv("COLUMNS", str(width))
    context = grammar.Context(group, info_name=program, **console.SETTINGS)
    own = group.get_command(context, command)
    text = own.get_help(grammar.Context(own, context, info_name=command, **console.SETTINGS))
    wide = [
        line
        for line in text.splitlines()
        if len(line) > width
        and len(line.split()) > 1
        and f"  {program} " not in line
        and not line.strip().startswith("-")
    ]
    assert not wide, wide


# --- what commands take and say --------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a program's command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        program, *arguments = map(str, words)
        code = console.run(importlib.import_module(PROGRAMS[program]).cli, program, arguments)
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_says_its_version(run, program):
    import ussim

    assert run(program, "--version") == (0, f"{program} {ussim.__version__}\n", "")


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if any("-o" in p.opts for p in c.params)])
def test_output_has_three_spellings(name):
    command = COMMANDS[name]
    output = next(p for p in command.params if "-o" in p.opts)
    for spelling in ("-o", "--out", "--output"):
        context = command.context_class(command, info_name=name, resilient_parsing=True)
        command.parse_args(context, [spelling, "here"])
        assert str(context.params[output.name]) == "here"


@pytest.mark.parametrize("name", ["ussim render", "datagen build", "irsde drus"])
def test_the_number_of_waves_has_two_spellings(name):
    command = COMMANDS[name]
    for spelling in ("--angles", "--transmits"):
        context = command.context_class(command, info_name=name, resilient_parsing=True)
        command.parse_args(context, [spelling, "7"])
        assert 7 in context.params.values()


def test_transmits_chosen_are_no_number():
    assert "--angles" not in next(p for p in COMMANDS["ussim beamform"].params if p.name == "transmits").opts


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_and_verbose_before_and_after_the_command(run, tmp_path, place):
    import numpy as np

    np.save("grey.npy", np.zeros((8, 16)))
    words = ["render", "grey.npy", "--size", "16", "--engine", "cpu", "-o", "a.png"]

    def call(option):
        return run("ussim", *([option] if place == "before" else []), *words, *([option] if place == "after" else []))

    code, out, err = call("-q")
    assert (code, err) == (0, "")
    assert out.startswith("a.png: ")
    words[1] = "absent.npy"
    code, out, err = call("-q")
    assert (code, out, len(err.splitlines())) == (3, "", 1)  # an error is told all the same
    code, out, err = call("-v")
    assert "Traceback" in err
    code, out, err = run("ussim", *words)
    assert "Traceback" not in err  # the option of one run is not that of the next


def test_depths_of_drus_are_low_and_high_or_as_before_the_middle():
    from irsde.drus import cli

    def parsed(*words):
        context = cli.drus.context_class(cli.drus, info_name="drus", resilient_parsing=True)
        cli.drus.parse_args(context, ["x.npz", *words, "-o", "x.png"])
        options = dict(context.params)
        cli._settle_depths(options)
        return options["field_mm"], options["center_depth_mm"], str(options["recording"])

    assert parsed("--depth-mm", "10", "40") == ((36.0, 30.0), 25.0, "x.npz")
    assert parsed("--depth-mm", "10", "40", "--width-mm", "20") == ((20.0, 30.0), 25.0, "x.npz")
    assert parsed("--depth-mm", "23") == (None, 23.0, "x.npz")
    assert parsed("--field-mm", "20", "10", "--depth-mm", "23") == ((20.0, 10.0), 23.0, "x.npz")
    for wrong in (["--depth-mm", "40", "10"], ["--width-mm", "20"], ["--depth-mm", "1", "2", "--pixels", "64", "64"]):
        with pytest.raises(click.UsageError):
            parsed(*wrong)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("ussim", "rendr"), 2, "no command 'rendr' (did you mean 'render'?)"),
        (
            ("irsde", "drus-trian"),
            2,
            "no command 'drus-trian' (did you mean 'drus-train'?)",
        ),  # of a module not imported
        (("ussim", "render", "phantm.npy"), 3, "phantm.npy: no such file or folder (did you mean 'phantom.npy'?)"),
        (("ussim", "render", "sub/slce.npy"), 3, "(did you mean 'sub/slice.npy'?)"),
        (("ussim", "beamform", "phantom.npz"), 3, "(did you mean 'phantom.npy'?)"),
        (("ussim", "render", "phantom.npy", "--transmit", "plan"), 2, "(did you mean 'plane'?)"),
        (("ussim", "render", "phantom.npy", "--engine", "cup"), 2, "(did you mean 'cpu'?)"),
        (("ussim", "render", "--phantom", "cyst"), 2, "cysts"),
        (("ussim", "render", "phantom.npy", "--probe", "L11"), 2, "L11-5v"),
        (("datagen", "build", "--source", "dem", "--probe", "L11-5v"), 2, "(did you mean 'demo'?)"),
        (("datagen", "info", "pair.zarr"), 3, "pairs.zarr'?)"),
        (("datagen", "inspect", "subb"), 3, "(did you mean 'sub'?)"),
        (("irsde", "train", "--data", "pairs.zarr", "--out", "x", "--method", "irs"), 2, "(did you mean 'irsde'?)"),
        (("irsde", "restore", "despekler", "phantom.npy", "-o", "x.png"), 3, "(did you mean 'despeckler'?)"),
        (("irsde", "models", "despekler"), 2, "(did you mean 'despeckler'?)"),
        (("irsde", "restore", "sbu", "phantom.npy", "-o", "x.png"), 3, "(did you mean 'sub'?)"),
    ],
)
def test_a_word_mistyped_is_guessed(run, tmp_path, words, code, said):
    import numpy as np

    (tmp_path / "sub").mkdir()
    (tmp_path / "pairs.zarr").mkdir()
    np.save("phantom.npy", np.zeros((8, 8)))
    np.save("sub/slice.npy", np.zeros((8, 8)))
    got, _, err = run(*words)
    assert got == code, err
    assert said in err.splitlines()[-1]


def test_a_probe_of_a_store_mistyped_is_guessed():
    from datagen.store.loader import probe_names
    from ussim import DataError

    with pytest.raises(DataError, match=r"no probe 'C52v' here \(did you mean 'C5-2v'\?\); expected L11-5v, C5-2v"):
        probe_names({"L11-5v": "L11-5v", "C5-2v": "C5-2v"}, "C52v", "pairs.zarr")


@pytest.mark.parametrize(
    ("words", "said", "unsaid"),
    [
        ("datagen build --source demo --probe L11-5v --angles 0", "--angles:", "n_transmits"),
        ("datagen build --source demo --probe L11-5v --transmits 0", "--angles:", "n_transmits"),
        ("datagen build --source demo --probe L11-5v --attenuation -1", "--attenuation:", "attenuation_db"),
        ("datagen build --source demo --probe L11-5v --min-tissue 7", "--min-tissue:", "min_tissue"),
        ("datagen build --source demo --probe L11-5v --probe L11-5v", "--probe:", "probes:"),
        ("datagen build --source demo --probe L11-5v --segmenter sam2", "--sam2-checkpoint:", "sam2_checkpoint"),
        ("datagen build --source demo --probe L11-5v --max-angle-deg 95", "--max-angle-deg", "max_angle_deg"),
        ("irsde train --data x --out y --preset tiny --patch-size 30", "--patch-size:", "patch_size"),
        ("irsde train --data x --out y --preset tiny --inverse minmax", "--inverse:", "\ninverse"),
        ("irsde restore x y.npy -o z.npy --device cuda:77", "x", "device="),
        ("ussim render --phantom cysts --engine cuda", "--engine cpu", 'engine="cpu"'),
    ],
)
def test_errors_name_options_not_fields(run, words, said, unsaid):
    code, _, err = run(*words.split())
    assert code != 0
    assert said in err.splitlines()[-1]
    assert unsaid not in err.splitlines()[-1]


def test_a_field_of_a_file_keeps_its_name(run, tmp_path):
    (tmp_path / "recipe.toml").write_text('source = "demo"\nprobe = "L11-5v"\nn_transmits = 0\n')
    code, _, err = run("datagen", "build", "--config", "recipe.toml")
    assert code == 2
    assert "error: n_transmits:" in err


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ussim", "render", "--probe", "l11"], {"L11-4v", "L11-5v"}),
        (["ussim", "render", "--phantom", "li"], {"liver"}),
        (["ussim", "render", "--engine", "c"], {"cpu", "cuda"}),
        (["ussim", "render", "--transmit", "p"], {"plane"}),
        (["datagen", "build", "--source", "duke"], {"duke-liver", "duke-breast"}),
        (["datagen", "build", "--probe", "p6"], {"P6-3"}),
        (["irsde", "dru"], {"drus", "drus-train"}),
        (["irsde", "drus", "--operator", "k"], {"kronecker"}),
    ],
)
def test_the_shell_completes(words, expected):
    from click.shell_completion import ShellComplete

    program, *typed, incomplete = words
    cli = importlib.import_module(PROGRAMS[program]).cli
    found = ShellComplete(cli, {}, program, f"_{program.upper()}_COMPLETE").get_completions(typed, incomplete)
    assert {item.value for item in found} == expected


@pytest.mark.parametrize("words", ["datagen info", "datagen report", "irsde train --data"])
def test_the_shell_completes_folders_of_stores(words):
    from click.shell_completion import ShellComplete

    program, *typed = words.split()
    cli = importlib.import_module(PROGRAMS[program]).cli
    found = ShellComplete(cli, {}, program, f"_{program.upper()}_COMPLETE").get_completions(typed, "pai")
    assert [item.type for item in found] == ["dir"]
