"""Times a training step with LoRA (r = 8 on q and v of a decoder of GPT-2's size), and inference, against peft.

python benchmarks/lora.py                         on this machine's GPU if there is one, else on its CPU
python benchmarks/lora.py --only train            some of it
python benchmarks/lora.py --layers 2 --dry        a quick look

All providers have the same frozen weights, the same A and B and the same tokens; loss and gradients must agree. A step
is forward, loss, backward, and AdamW on the 294,912 numbers that train. On a GPU the frozen weights are bfloat16. peft
keeps A and B in float32 then, as we do; with autocast_adapter_dtype=False it keeps them in bfloat16 too.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial

import peft
import torch
from harness import Case, run
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from papercode.adaptation.lora_model import adapters, inject, merge
from papercode.adaptation.lora_report import freeze
from papercode.attention.backends import sdpa
from papercode.attention.transformer import EncoderLayer, FeedForward, MultiHeadAttention, causal_mask
from papercode.chunked_loss import chunked_cross_entropy

WIDTH, HEADS, VOCABULARY, LENGTH, R, ALPHA = 768, 12, 50257, 1024, 8, 16


class PreNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        return x + sublayer(self.norm(x))


class Decoder(nn.Module):
    """GPT-2's shape with q, k and v apart; returns what the tied head reads."""

    def __init__(self, layers: int):
        super().__init__()
        self.words, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleList(
            EncoderLayer(
                MultiHeadAttention(WIDTH, HEADS, attend=sdpa), FeedForward(WIDTH, 4 * WIDTH, nn.GELU()), PreNorm
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(WIDTH)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, mask=causal_mask)
        return self.norm(x)


def sharing(model: nn.Module) -> nn.Module:
    """A copy around the same parameters."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def with_ours(base: Decoder) -> Decoder:
    """A and B random, as if trained: at the start A would have no gradient to compare."""
    model = sharing(base)
    inject(model, ["q", "v"], r=R, alpha=ALPHA)
    freeze(model)
    generator = torch.Generator().manual_seed(1)
    for layer in adapters(model).values():
        layer.B.data.copy_(0.02 * torch.randn(layer.B.shape, generator=generator))
    return model


def with_peft(base: Decoder, ours: Decoder, **options) -> Decoder:
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["q", "v"])
    model = peft.get_peft_model(sharing(base), config, **options).base_model.model
    for name, layer in adapters(ours).items():
        theirs = model.get_submodule(name)
        theirs.lora_A["default"].weight.data.copy_(layer.A)
        theirs.lora_B["default"].weight.data.copy_(layer.B)
    return model


def whole_logits(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return cross_entropy((hidden @ weight.mT).flatten(0, 1), target.flatten())


def step(model: Decoder, loss: Callable[..., Tensor], tokens: Tensor) -> Callable[[], list[Tensor]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def work() -> list[Tensor]:
        value = loss(model(tokens[:, :-1]), model.words.weight, tokens[:, 1:])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return [value.detach(), *(p.grad for p in trained if p.grad is not None)]

    return work


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    cuda = arguments.device == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    torch.manual_seed(0)
    base = Decoder(arguments.layers).requires_grad_(False).to(arguments.device, dtype)
    for b, n in ((4, 128), (16, 1024)) if cuda else ((4, 128),):
        shape, name = f"{b} x {n}", str(dtype).removeprefix("torch.")
        tokens = torch.randint(VOCABULARY, (b, n + 1), device=arguments.device)
        ours, again = with_ours(base), with_ours(base)
        again.load_state_dict(ours.state_dict())
        providers = {
            "LoRALinear, chunked loss": step(ours, partial(chunked_cross_entropy, rows=max(128, b * n // 32)), tokens),
            "LoRALinear, whole logits": step(again, whole_logits, tokens),
            "peft": step(with_peft(base, ours), whole_logits, tokens),
        }
        if cuda:
            narrow = with_peft(base, ours, autocast_adapter_dtype=False)
            providers["peft, bfloat16 A and B"] = step(narrow, whole_logits, tokens)
        # twelve layers in bfloat16: gradients of equal programs differ by 0.08 of the largest; in float32 they agree
        yield Case("train, r = 8 on q and v", shape, providers, name, 0.2 if cuda else 1e-4)
        del providers

        # inference, without the head, which is the same for all
        merged = copy.deepcopy(base)
        inject(merged, ["q", "v"], r=R, alpha=ALPHA)
        apart = with_ours(base)
        for mine, other in zip(adapters(merged).values(), adapters(apart).values(), strict=True):
            mine.A.data.copy_(other.A)
            mine.B.data.copy_(other.B)
        merged.eval()
        merge(merged)
        theirs = with_peft(base, apart)
        for width in (n, 1):
            words = tokens[:, :width].contiguous()
            run_it = {
                "LoRALinear, merged": partial(merged.eval(), words),
                "LoRALinear, apart": partial(apart.eval(), words),
                "peft, apart": partial(theirs.eval(), words),
            }
            yield Case("inference", f"{b} x {width}", run_it, name, 0.1 if cuda else 1e-4, inference=True)
            pair = {"LoRALinear, merged": run_it["LoRALinear, merged"], "the base": partial(base.eval(), words)}
            yield Case("inference, merged or not adapted", f"{b} x {width}", pair, name, None, inference=True)


if __name__ == "__main__":
    run("lora", cases, __doc__, layers=(12, "of the decoder"))
