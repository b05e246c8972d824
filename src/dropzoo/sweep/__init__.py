"""Sweeps: many training runs that differ in their dropout, compared fairly."""

from dropzoo.sweep.run import Space, Trial, load_space, run_sweep

__all__ = ["Space", "Trial", "load_space", "run_sweep"]
