"""The HTTP server for exports: TensorFlow Serving's REST API, Monte-Carlo predictions, and a page."""
