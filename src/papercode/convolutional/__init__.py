"""Deep convolutional networks, and what made depth trainable."""
