"""Words of `irsde train --help` on defaults and presets, read off the config itself, and the preset of a machine."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import click

from irsde.config import PRESETS, TrainConfig
from irsde.recipes import ALL

WITHOUT_CARD = "small"  # 20,000 steps at 2.2 per second of one CPU core: 2.5 h; of "paper" a core takes a hundred days
# What a preset is, in words: the settings are listed from PRESETS. Parameters of the network, and how long a run takes.
SIZES = {
    "paper": "56.6 M parameters; for a graphics card",
    "small": "3.6 M parameters; hours on a CPU",
    "tiny": "0.17 M parameters; minutes on a CPU, to try things out",
}
OPTIONS = {"data": "store", "probes": "probes"}  # parameter of the command -> setting, where they differ
_SAID = re.compile(r"\s*\[default: [^\]]*\]")


class TrainCommand(click.Command):
    """The command whose options are settings: their help ends with the default, that of each preset where they differ."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        """Return the options, their defaults in words."""
        parameters = super().get_params(context)
        for parameter in parameters:
            said = default_of(OPTIONS.get(str(parameter.name), str(parameter.name)))
            if said and isinstance(parameter, click.Option):
                text = _SAID.sub("", parameter.help or "").rstrip(". ")
                parameter.help = f"{text + '.  ' if text else ''}[default: {said}]"
        return parameters

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each preset sets."""
        with formatter.section("Presets (any option wins over them)"):
            formatter.write_dl([(name, described(name)) for name in PRESETS])
        with formatter.section("Recipes (any option wins over them)"):
            formatter.write_dl([(name, recipe_described(name)) for name in ALL])


def default_of(setting: str) -> str | None:
    """Return the default of a setting in words: its own, and the presets' where they set it.

    None where there is none to say.
    """
    if setting == "preset":
        return f"paper with a graphics card, else {WITHOUT_CARD}"
    fields = {field.name: field for field in dataclasses.fields(TrainConfig)}
    if setting not in fields or fields[setting].default in (dataclasses.MISSING, None, ()):
        return None
    own = fields[setting].default
    values = {name: preset.get(setting, own) for name, preset in PRESETS.items()}
    if len(set(values.values())) == 1:
        return in_words(values["paper"])
    return ", ".join(f"{name} {in_words(value)}" for name, value in values.items())


def described(preset: str) -> str:
    """Return what a preset is and sets."""
    settings = ", ".join(f"{name.replace('_', ' ')} {in_words(value)}" for name, value in PRESETS[preset].items())
    return f"{SIZES[preset]}; {settings}"


def recipe_described(recipe: str) -> str:
    """Whose a recipe is, and what it sets otherwise than we do at its preset."""
    ours = TrainConfig.create(store="s", preset=ALL[recipe].settings["preset"])
    other = {name: value for name, value in ALL[recipe].settings.items() if value != getattr(ours, name)}
    settings = ", ".join(f"{name.replace('_', ' ')} {in_words(value)}" for name, value in other.items())
    return f"{ALL[recipe].source}; preset {ours.preset}, {settings}"


def in_words(value: Any) -> str:
    """Return the value of a setting as the command line writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and value >= 1000:
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def preset_for(device: str) -> tuple[str, str]:
    """Return the preset of a machine for a device as the user names it, and the line that says why."""
    from irsde.network import pick_device

    if pick_device(device).type == "cuda":
        return "paper", "preset paper, as there is a graphics card"
    steps = PRESETS[WITHOUT_CARD]["steps"]
    return WITHOUT_CARD, (
        f"preset {WITHOUT_CARD}, as there is no graphics card to use: {steps:,} steps, hours; --preset paper takes months"
    )


def recipe_warning(recipe: str, device: str) -> str | None:
    """Return what is to be said of a recipe whose preset was left to it.

    None where a card trains it or there is no recipe.
    """
    from irsde.network import pick_device

    if recipe not in ALL or ALL[recipe].settings["preset"] != "paper" or pick_device(device).type == "cuda":
        return None
    settings = ALL[recipe].settings
    return (
        f"recipe {recipe}: preset {settings['preset']}, {settings['steps']:,} steps, and no graphics card to use: months; "
        "--preset tiny --steps 4000 tries it out"
    )
