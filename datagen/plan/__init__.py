"""Plan of a dataset: the recipe, the slices that are cut, the random choices of each sample."""
