"""Small models of the transformers library with random weights, written as it writes them."""

import torch
from transformers import BertConfig, GPT2Config, OpenAIGPTConfig

from helpers import randomise

SIZES = {
    "bert": BertConfig(vocab_size=97, hidden_size=20, num_hidden_layers=3, num_attention_heads=5, intermediate_size=28,
                       max_position_embeddings=31, type_vocab_size=3),
    "gpt2": GPT2Config(vocab_size=97, n_embd=20, n_layer=3, n_head=5, n_positions=31, n_inner=28),
    "openai-gpt": OpenAIGPTConfig(vocab_size=97, n_embd=20, n_layer=3, n_head=5, n_positions=31),
}  # fmt: skip


def written(architecture, config, folder):
    """An architecture with every parameter drawn, saved to a folder; the model itself, in evaluation mode."""
    model = randomise(architecture(config)).eval()
    model.save_pretrained(folder)
    return model


def tokens(b=2, n=7, high=97):
    return torch.randint(high, (b, n))
