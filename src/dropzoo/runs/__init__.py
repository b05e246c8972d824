"""A training run and what is done with it: its folder, evaluation, predictions, throughput."""
