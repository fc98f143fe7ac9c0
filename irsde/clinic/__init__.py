"""What clinical pictures have that simulated B-modes lack, for training."""
