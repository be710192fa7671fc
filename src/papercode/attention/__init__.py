"""The Transformer, its normalisation, positions and efficient variants."""
