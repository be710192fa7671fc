"""Times generation with a model of GPT-2's smallest size against transformers' generate, and the loop without a cache.

python benchmarks/gpt2.py                       prompts of 32 tokens: 128 more greedily, 32 more with a beam of 5
python benchmarks/gpt2.py --only greedy         some of it
python benchmarks/gpt2.py --layers 2 --dry      a quick look

All providers have the same random weights in float32; the tokens that they add must be the same. `FastGPT2` is our
inference copy of the weights, "GPT2, cached" the readable model with a cache. The textbook loop, which reads the whole
text again for each token, adds 32 tokens to one prompt only, for it takes long.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Case, run
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from papercode.attention.backends import sdpa
from papercode.attention.layer_norm import fuse_norms
from papercode.attention.wrapping import wrapped
from papercode.decoders.fast_generation import FastGPT2
from papercode.decoders.generation import cached_generation
from papercode.decoders.gpt2 import GPT2
from papercode.decoding import beam_search, greedy_search

PROMPT, BEAM, END = 32, 5, 50_256


def plainly(length: int) -> float:
    """generate's length penalty at 1.0."""
    return float(length)


def fast(model: FastGPT2, search: Callable, prompt: Tensor, new: int) -> Tensor:
    return search(model.steps(PROMPT + new), prompt, end=END, max_new=new)


def cached(model: GPT2, search: Callable, prompt: Tensor, new: int) -> Tensor:
    with wrapped(model, lambda _: sdpa), cached_generation(model, capacity=PROMPT + new) as step:
        return search(step, prompt, end=END, max_new=new)


def textbook(model: GPT2, search: Callable, prompt: Tensor, new: int) -> Tensor:
    with wrapped(model, lambda _: sdpa):
        return search(lambda tokens, parents: model(tokens)[:, -1], prompt, end=END, max_new=new)


def best_of_beam(*arguments, **settings) -> Tensor:
    return beam_search(*arguments, **settings, beam=BEAM, penalty=plainly)[0][:, 0]


def generate(reference: GPT2LMHeadModel, beam: int, prompt: Tensor, new: int) -> Tensor:
    settings = {"num_beams": beam, "length_penalty": 1.0, "early_stopping": True} if beam > 1 else {}
    seen = torch.ones_like(prompt)
    return reference.generate(
        prompt, attention_mask=seen, do_sample=False, max_new_tokens=new, pad_token_id=END, **settings
    )


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    torch.manual_seed(0)
    reference = GPT2LMHeadModel(GPT2Config(n_layer=arguments.layers)).eval()
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        model = fuse_norms(GPT2.from_pretrained(folder)).to(arguments.device)
    reference = reference.to(arguments.device)
    for beam, batches, new in ((1, (1, 8), 128), (BEAM, (1, 4), 32)):
        for b in batches:
            prompt = torch.randint(END, (b, PROMPT), device=arguments.device)
            search = greedy_search if beam == 1 else best_of_beam
            providers = {
                "FastGPT2": partial(fast, FastGPT2(model, b * beam), search, prompt, new),
                "GPT2, cached": partial(cached, model, search, prompt, new),
                "transformers": partial(generate, reference, beam, prompt, new),
            }
            name = "greedy" if beam == 1 else f"beam {beam}"
            yield Case(f"generation, {name}", f"{b} x {PROMPT} + {new}", providers, tolerance=0.0, inference=True)
    prompt, new = torch.randint(END, (1, PROMPT), device=arguments.device), 32
    providers = {
        "FastGPT2": partial(fast, FastGPT2(model), greedy_search, prompt, new),
        "GPT2, no cache": partial(textbook, model, greedy_search, prompt, new),
    }
    yield Case("generation, no cache", f"1 x {PROMPT} + {new}", providers, tolerance=0.0, inference=True)


if __name__ == "__main__":
    run("gpt2", cases, __doc__, layers=(12, "of the model"))
