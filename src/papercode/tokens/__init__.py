"""Subword tokenizers: from text to numbers and back."""
