"""`python -m dropzoo.cli` is the same as `dropzoo`."""

from dropzoo.cli.app import main

main()
