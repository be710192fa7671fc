"""Notes on NLP papers whose every claim about a model is code that runs: the models."""
