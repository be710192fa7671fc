"""Small models of the transformers library with random weights, written as it writes them."""

import json

import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, GPT2Config, OpenAIGPTConfig

from helpers import randomise

GONE = object()
"""In place of a value: the configuration does not have it."""

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


def change(folder, add=None, **values):
    """Puts values into the configuration, and adds tensors to the weights."""
    if add:
        save_file(load_file(folder / "model.safetensors") | add, folder / "model.safetensors", {"format": "pt"})
    path = folder / "config.json"
    found = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not GONE}))


def reference(theirs, x, segments, keep, names):
    """These parts of what an encoder of transformers says."""
    with torch.no_grad():
        out = theirs(x, token_type_ids=segments, attention_mask=keep.long())
    return [getattr(out, name) for name in names]


def there_and_back(ours_of, theirs_of, folder):
    """Reads folder/theirs, writes folder/ours, and asserts that all weights have arrived; theirs, read from there."""
    ours = ours_of.from_pretrained(folder / "theirs")
    ours.to_transformers(folder / "ours")
    before, after = (load_file(folder / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again, told = theirs_of.from_pretrained(folder / "ours", dtype=torch.float64, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    twice = ours_of.from_pretrained(folder / "ours")
    assert all(torch.equal(twice.state_dict()[name], tensor) for name, tensor in ours.state_dict().items())
    return again.eval()
