"""A page to look through a dataset: its rows as they are found, its images when they are asked for."""
