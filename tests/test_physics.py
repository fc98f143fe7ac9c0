"""What must hold of the whole line on any engine: places, statistics, symmetries."""

import numpy as np
import pytest

import ussim


def test_homogeneous_dense_speckle_is_fully_developed():
    """Envelope of many scatterers a resolution cell is Rayleigh: mean / std = 1.913 (Goodman 1975).

    At mean distance λ_min / 2; 1.91 ± 0.05 is the spread over a region of some 900 resolution cells.
    """
    acquisition = ussim.Acquisition(ussim.load_probe("L11-5v"), ussim.PlaneWaves(0.0))
    grid = ussim.ImageGrid(x=np.linspace(-12e-3, 12e-3, 160), z=np.linspace(14e-3, 28e-3, 160))
    wide = ussim.ImageGrid(x=np.linspace(-16e-3, 16e-3, 8), z=np.linspace(11e-3, 31e-3, 8))
    probe = acquisition.probe
    distance = 1540 / (probe.center_frequency * (1 + probe.bandwidth / 2)) / 2
    ratios = []
    for seed in range(2):
        scatterers = ussim.scatterers_from_image(np.ones((8, 8)), wide, acquisition, seed, mean_distance=distance)
        image = ussim.delay_and_sum(ussim.demodulate(ussim.simulate(scatterers, acquisition)), grid)
        envelope = np.abs(image)
        envelope /= envelope.mean(axis=1, keepdims=True)  # spreading dims with depth
        ratios.append(envelope.mean() / envelope.std())
    assert np.mean(ratios) == pytest.approx(1.91, abs=0.05)


@pytest.mark.parametrize("name", ["L11-5v", "P4-2v", "C5-2v"])
def test_mirrored_image_mirrors_the_field_of_view(name):
    """A bright disc on the left stays on the left: no flip between image, channels and grid."""
    acquisition = ussim.Acquisition(probe := ussim.load_probe(name), ussim.imaging_waves(probe, n_transmits=3))
    grid = ussim.ImageGrid.for_acquisition(acquisition, shape=(96, 96))
    x, z = grid.mesh()
    center_x, center_z = 0.5 * grid.x[0], 0.4 * grid.z[0] + 0.6 * grid.z[-1]
    radius = 0.12 * np.ptp(grid.x)
    disc = np.hypot(x - center_x, z - center_z) < radius
    image = np.where(disc, 1.0, 0.3)
    spacing = 2 * 1540 / probe.center_frequency
    shown = ussim.bmode(image, acquisition, grid, seed=0, mean_distance=spacing)
    mirrored = disc[:, ::-1]
    assert shown[disc].mean() > shown[mirrored].mean() + 0.2
