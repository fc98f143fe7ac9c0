"""Ways from elements to the scatterers of a cell: amplitude and phase at its first frequency, and their step to the next.

Phases are relative to the cell's references. The way beyond the reference, r - R, comes from positions in the cell:
(r² - R²) / (r + R), so that float32 holds it to a fraction of a nanometre.
"""

from __future__ import annotations

import math

import numpy as np

from .... import physics
from .layout import LANES, PAIR, STATE
from .lens import beam_place, start_beam
from .simd import compiled, cosine_sine, exp, exp_minus_one, fma, load, store, turn_minus_one

_incidence = compiled(physics.incidence)
_obliquity = compiled(physics.obliquity)
_directivity = compiled(physics.directivity)
_attenuation = compiled(physics.attenuation)
_elevation_path = compiled(physics.elevation_path)


@compiled
def start_waves(elements, cell, space):
    """Fill space.waves, [tile][element][sub-element][4], and what belongs to it."""
    if elements.elevated:
        _start_elevated(elements, cell, space)
    elif elements.matrix:
        _start_matrix(elements, cell, space.waves, space.widths)
    else:
        _start_flat(elements, cell, space.waves, space.widths)


@compiled
def _start_flat(elements, cell, waves, widths):
    """Start the ways in two dimensions."""
    minimum_distance, steps = elements.minimum_distance, _steps(elements, cell)
    n_elements, n_sub = elements.sub_x.shape
    at = 0
    for tile in range(cell.points.shape[1] // LANES):
        x, z = load(cell.points[0], tile * LANES), load(cell.points[1], tile * LANES)
        for e in range(n_elements):
            reference = cell.element_reference[e] / cell.rate * elements.speed_of_sound
            for m in range(n_sub):
                center_x, center_z = cell.center[0] - elements.sub_x[e, m], cell.center[1] - elements.sub_z[e, m]
                center_distance = math.sqrt(center_x * center_x + center_z * center_z)
                dx, dz = x + center_x, z + center_z
                sine, cosine = _incidence(dx, dz, elements.sine[e], elements.cosine[e])
                distance = np.sqrt(dx * dx + dz * dz)
                beyond = (x * (x + 2 * center_x) + z * (z + 2 * center_z)) / (distance + center_distance)
                beyond = np.maximum(beyond + (center_distance - reference), minimum_distance - reference)
                distance = np.maximum(distance, minimum_distance)
                amplitude = _obliquity(cosine, elements.baffle) / np.sqrt(distance) / n_sub
                _start(elements, waves, widths, at, beyond, distance, amplitude, sine, steps)
                at += STATE


@compiled
def _start_elevated(elements, cell, space):
    """Start the ways in three dimensions, and the beams in elevation."""
    minimum_distance, steps, square_center = elements.minimum_distance, _steps(elements, cell), cell.center[2] ** 2
    n_elements, n_sub = elements.sub_x.shape
    at = 0
    for tile in range(cell.points.shape[1] // LANES):
        x, z = load(cell.points[0], tile * LANES), load(cell.points[1], tile * LANES)
        up = load(cell.points[3], tile * LANES)
        for e in range(n_elements):
            reference = cell.element_reference[e] / cell.rate * elements.speed_of_sound
            added = _start_elevation(elements, cell, tile, e, space.lens)
            for m in range(n_sub):
                center_x, center_z = cell.center[0] - elements.sub_x[e, m], cell.center[1] - elements.sub_z[e, m]
                center_distance = math.sqrt(center_x * center_x + center_z * center_z + square_center)
                dx, dz = x + center_x, z + center_z
                sine, cosine = _incidence(dx, dz, elements.sine[e], elements.cosine[e])
                distance = np.sqrt(dx * dx + dz * dz + (up + square_center))
                beyond = x * (x + 2 * center_x) + z * (z + 2 * center_z) + up
                beyond = beyond / (distance + center_distance)
                beyond = np.maximum(beyond + (center_distance - reference), minimum_distance - reference) + added
                distance = np.maximum(distance, minimum_distance)
                amplitude = _obliquity(cosine, elements.baffle) / distance / n_sub
                _start(elements, space.waves, space.widths, at, beyond, distance, amplitude, sine, steps)
                at += STATE


@compiled
def _start_elevation(elements, cell, tile, e, lens):
    """Begin the beam in elevation of a tile and an element; return the way that the elevation adds to the distance."""
    x, z = load(cell.points[0], tile * LANES), load(cell.points[1], tile * LANES)
    square_y = load(cell.points[3], tile * LANES) + cell.center[2] * cell.center[2]
    n_elements, n_sub = elements.sub_x.shape
    distance = x * 0
    for m in range(n_sub):
        dx = x + (cell.center[0] - elements.sub_x[e, m])
        dz = z + (cell.center[1] - elements.sub_z[e, m])
        distance = distance + np.maximum(np.sqrt(dx * dx + dz * dz + square_y), elements.minimum_distance)
    distance = distance / n_sub
    start_beam(lens, beam_place(tile, e, n_elements), distance)
    return _elevation_path(distance, square_y)


@compiled
def _start_matrix(elements, cell, waves, widths):
    """Start the ways from a matrix array, whose sub-elements have a directivity along both of their sides."""
    minimum_distance, steps = elements.minimum_distance, _steps(elements, cell)
    n_elements, n_sub = elements.sub_x.shape
    at = 0
    for tile in range(cell.points.shape[1] // LANES):
        x, z = load(cell.points[0], tile * LANES), load(cell.points[1], tile * LANES)
        y = load(cell.points[3], tile * LANES)
        for e in range(n_elements):
            reference = cell.element_reference[e] / cell.rate * elements.speed_of_sound
            for m in range(n_sub):
                center_x, center_z = cell.center[0] - elements.sub_x[e, m], cell.center[1] - elements.sub_z[e, m]
                center_y = cell.center[2] - elements.sub_y[e, m]
                center_distance = math.sqrt(center_x * center_x + center_y * center_y + center_z * center_z)
                dx, dy, dz = x + center_x, y + center_y, z + center_z
                distance = np.maximum(np.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
                beyond = x * (x + 2 * center_x) + y * (y + 2 * center_y) + z * (z + 2 * center_z)
                beyond = beyond / (distance + center_distance)
                beyond = np.maximum(beyond + (center_distance - reference), minimum_distance - reference)
                sine, rise, cosine = dx / distance, dy / distance, dz / distance
                distance = np.maximum(distance, minimum_distance)
                amplitude = _obliquity(cosine, elements.baffle) / distance / n_sub
                if elements.full_directivity:
                    store(widths, len(widths) // 2 + at // STATE * LANES, rise * elements.half_height_per_hertz)
                else:
                    amplitude = amplitude * _directivity(rise, elements.half_height_wavenumber)
                _start(elements, waves, widths, at, beyond, distance, amplitude, sine, steps)
                at += STATE


@compiled
def _steps(elements, cell):
    """Return turns per meter at the first frequency and per step of it, and the same of nepers per meter."""
    step, loss = cell.rate / cell.window_length, elements.attenuation_db_cm_mhz
    start = cell.first_bin * step
    speed = elements.speed_of_sound
    return start / speed, step / speed, -_attenuation(start, loss), -_attenuation(step, loss)


@compiled
def _start(elements, waves, widths, at, beyond, distance, amplitude, sine, steps):
    """Store one sub-element's wave at a tile of scatterers, and what the next frequency adds to 1 in its factor."""
    turns_start, turns_step, loss_start, loss_step = steps
    if not elements.full_directivity:
        amplitude = amplitude * _directivity(sine, elements.half_width_wavenumber)
    re, im = cosine_sine(beyond * turns_start)
    amplitude = amplitude * exp(distance * loss_start)
    store(waves, at, re * amplitude)
    store(waves, at + LANES, im * amplitude)
    re, im = turn_minus_one(beyond * turns_step)
    decay = exp_minus_one(distance * loss_step)
    store(waves, at + PAIR, fma(re, decay, re + decay))
    store(waves, at + PAIR + LANES, fma(im, decay, im))
    if elements.full_directivity:
        store(widths, at // STATE * LANES, sine * elements.half_width_per_hertz)
