"""Predictions of many images as files, tables and measurements that other programs can use."""

from dropzoo.predictions.api import predict_files

__all__ = ["predict_files"]
