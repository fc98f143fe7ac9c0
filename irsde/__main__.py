"""`python -m irsde`, and so `accelerate launch -m irsde train ...`."""

from irsde.cli import main

main()
