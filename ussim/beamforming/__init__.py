"""Beamforming beyond plain delay-and-sum: which transmits count where."""
