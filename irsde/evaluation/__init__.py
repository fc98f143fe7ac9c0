"""Measuring a model: metrics, the filters it is compared with, tables."""
