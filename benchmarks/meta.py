"""Times the building of full-size models on torch's meta device, parameters counted.

python benchmarks/meta.py
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from harness import Case, run
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from papercode.decoders.gpt3 import GPT3, SIZES
from papercode.encoders.bert import BERT


def on_meta(make: Callable[..., nn.Module], *arguments, **settings) -> torch.Tensor:
    """Builds a model, and counts its parameters."""
    with torch.device("meta"):
        model = make(*arguments, **settings)
    return torch.tensor(float(sum(p.numel() for p in model.parameters())), dtype=torch.float64)


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    size = SIZES["175B"]
    config = GPT2Config(
        n_positions=2048, n_embd=size["d_model"], n_layer=size["n_layers"], n_head=size["n_heads"]
    )  # fmt: skip
    yield Case(
        "GPT-3 175B on the meta device",
        "96 layers",
        {"GPT3": lambda: on_meta(GPT3, **size), "transformers": lambda: on_meta(GPT2LMHeadModel, config)},
        tolerance=0.0,
    )
    yield Case(
        "BERT-base on the meta device",
        "12 layers",
        {"BERT": lambda: on_meta(BERT), "transformers": lambda: on_meta(BertModel, BertConfig())},
        tolerance=0.0,
    )


if __name__ == "__main__":
    run("meta", cases, __doc__)
