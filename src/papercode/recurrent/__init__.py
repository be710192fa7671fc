"""Recurrent networks: from the LSTM to sequence models with attention."""
