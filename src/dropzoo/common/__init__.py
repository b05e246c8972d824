"""The ground floor: argument checks, seeds, file writes, image orientation, private names of Keras and TensorFlow.

It imports nothing else of dropzoo, and every other package may import it.
"""
