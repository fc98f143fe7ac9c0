"""Traits of clinical pictures that simulated B-modes lack, for training."""
