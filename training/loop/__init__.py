"""The training loop: steps, batches, checkpoints, signals, replicas, workers."""
