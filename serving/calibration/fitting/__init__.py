"""Fits calibrations: temperatures, the sites that drop, and promises, on held-out images."""
