"""SavedModels with their preprocessing, signatures and model card."""
