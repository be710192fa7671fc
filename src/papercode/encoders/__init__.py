"""BERT and its kin: encoders that read both ways."""
