"""Calibration: what a probe and a medium must be for the simulator to give a recording of wires, or of speckle."""
