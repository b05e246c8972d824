"""`python -m dropzoo`: the table of models."""

from dropzoo.cli import main

main(["list", "models"])
