"""Trained models in use: loading, embedding image files, searching a folder of images, and exporting."""
