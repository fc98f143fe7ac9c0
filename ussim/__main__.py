"""`python -m ussim`: the command line where its script is not on the path."""

from ussim.commands.cli import main

main()
