"""GPT and its kin: language models that read from left to right."""
