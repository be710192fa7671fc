"""Models that read one text and write another: sequence to sequence, and blanks to fill in."""
