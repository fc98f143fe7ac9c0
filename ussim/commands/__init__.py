"""The command line of `ussim`, and what the command lines of all three packages share."""
