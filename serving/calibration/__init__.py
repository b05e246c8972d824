"""Calibrations: temperatures, sites that drop, and promises that hold at a stated level; how they are applied."""
