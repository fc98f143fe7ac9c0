"""What will be made: the recipe, the slices that are cut, the random choices of each sample."""
