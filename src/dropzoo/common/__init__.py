"""The ground floor: argument checks, seeds, whole-file writes, image orientation.

It imports nothing else of dropzoo, and every floor may use it.
"""
