"""Claim: so many transmits x channels x pixels per second, and the same image as the float64 reference.

IQ of 15 plane waves of L11-5v, 1,500 scatterers, onto 256 x 256 pixels with all elements, linear interpolation, delays
included, compiled code warm. PyMUST makes a matrix per transmit: one is made and applied, times 15; a second frame of the
same geometry needs only `applied_s`. Images are held to the
float64 `reference` engine of three transmits. What differs by design: ultraspy takes the first element's arrival, ustb and
vbeam the plane wave of an endless array (also where the real one sends no ray), zea clips outside the record.
"""

from __future__ import annotations

from asking import ask, beamforming_case, difference, not_here, save

import ussim

N_TRANSMITS = 15
TOOLKITS = ("ussim", "vbeam", "pymust", "zea", "ustb", "ultraspy")


def main() -> None:
    """Measure and write."""
    case, iq, grid = beamforming_case(N_TRANSMITS)
    expected = ussim.delay_and_sum(iq, grid, 0, engine="cpu")
    few, few_iq, _ = beamforming_case(3)
    exact = ussim.delay_and_sum(few_iq, grid, 0, engine="reference")
    work = case["samples"].shape[0] * case["samples"].shape[1] * grid.x.size * grid.z.size
    rows = []
    for toolkit in TOOLKITS:
        row, image = ask(toolkit, "beamform", case)
        if image is not None:
            if "build_seconds" in row:
                row["applied_s"] = row["frame_s"] - row["build_seconds"] * N_TRANSMITS
            row["rate"] = work / row["frame_s"]
            row["times_ussim"] = row["frame_cpu_s"] / (rows[0] if rows else row)["frame_cpu_s"]
            single = len(case["delays"]) != row["transmits_timed"]
            if single:
                middle = len(case["delays"]) // 2
                alone = ussim.IQData(
                    iq.samples[middle : middle + 1],
                    ussim.Acquisition(iq.acquisition.probe, ussim.CustomTransmits(case["delays"][middle])),
                    iq.sampling_frequency,
                    iq.demodulation_frequency,
                )
                row["differs_from_reference"] = difference(
                    image, ussim.delay_and_sum(alone, grid, 0, engine="reference")
                )
            else:
                _, small = ask(toolkit, "beamform", few, repeats=1)
                row["differs_from_reference"] = difference(small, exact)
            row["differs_from_ussim"] = None if single else difference(image, expected)
        rows.append(row)
    rows += not_here("beamform", set(TOOLKITS))
    save("beamforming", __doc__, {"workload": {"transmits": N_TRANSMITS, "channel_pixels": work}, "rows": rows})


if __name__ == "__main__":
    main()
