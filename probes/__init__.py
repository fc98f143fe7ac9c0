"""Probe presets, one TOML file each. Read them with `ussim.load_probe`."""
