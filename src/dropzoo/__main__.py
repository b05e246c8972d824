"""`python -m dropzoo` prints the table of models."""

from dropzoo.cli.app import main

main(["list", "models"])
