"""Metrics: what a text, a table of predictions or a model is worth, in one number."""
