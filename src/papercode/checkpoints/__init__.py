"""Released weights: the names and shapes of the Hugging Face layout, to and from ours."""
