"""`python -m dropzoo` is the same as `dropzoo`; without arguments it prints the table of models."""

import sys

from dropzoo.cli.app import main

main(sys.argv[1:] or ["list", "models"])
