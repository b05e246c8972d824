"""Random bits for masks: drawn plainly, compiled by XLA, or as Monte-Carlo samples."""
