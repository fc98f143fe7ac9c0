"""Figures, and acquisitions in words."""
