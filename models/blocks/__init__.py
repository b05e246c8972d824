"""Parts that several model builders share."""
