"""What is on disk: the layout of a store, where it lies, how it is written and read."""
