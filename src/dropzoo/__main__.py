"""`python -m dropzoo`: the table of models."""

from dropzoo.cli.app import main

main(["list", "models"])
