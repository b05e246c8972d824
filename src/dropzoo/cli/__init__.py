"""The command line: one module for each noun."""

from dropzoo.cli.app import main

__all__ = ["main"]
