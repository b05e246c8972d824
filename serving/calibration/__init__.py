"""Calibration on held-out images: temperatures, the sites that drop, and promises that hold at a stated level."""
