"""Times the sparse attentions of the collection over growing lengths: linear, where full attention is quadratic.

    python benchmarks/sparse.py                       1k to 16k positions
    python benchmarks/sparse.py --only Longformer     the layer against transformers' LongformerSelfAttention

They compute different things, so there is nothing to agree on; in the tests each agrees with attention under its mask.
The ratio is to PyTorch's full attention. Settings are the papers': a window of 512, blocks of 64 with 3 random ones, 4
rounds of hashing with chunks of 64, 256 mixtures of keys.
"""

import argparse
from collections.abc import Iterator
from functools import partial

import torch
from harness import Case, run
from torch.nn.functional import normalize, scaled_dot_product_attention

from papercode.attention.big_bird import BigBirdAttention
from papercode.attention.linformer import LinformerAttention, SequenceProjection
from papercode.attention.longformer import LongformerAttention, windowed_and_global
from papercode.attention.lsh_attention import LSHAttention
from papercode.attention.masks import Band
from papercode.attention.windowed import windowed


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    torch.manual_seed(0)
    for n in (1024, 2048, 4096, 8192, 16384):
        q, k, v = (torch.randn(1, 4, n, 64, device=arguments.device) for _ in range(3))
        some = torch.arange(n, device=arguments.device)[None] < 16
        window = Band(256, 256)
        providers = {
            "torch SDPA, full": partial(scaled_dot_product_attention, q, k, v),
            "windowed": partial(windowed, q, k, v, mask=window),
            "Longformer (16 global)": partial(windowed_and_global, q, k, v, mask=window, global_tokens=some),
            "BigBird": partial(BigBirdAttention(), q, k, v),
            "Reformer (LSH)": partial(LSHAttention(4, 64), q, normalize(q, dim=-1), v),
            "Linformer": partial(LinformerAttention(SequenceProjection(n, 256).to(arguments.device)), q, k, v),
        }
        yield Case("attention over length", f"1 x 4 x {n} x 64", providers, tolerance=None, inference=True)
    yield longformer(arguments)


def longformer(arguments: argparse.Namespace, n: int = 4096, window: int = 512) -> Case:
    """A layer of Longformer-base on the same weights as transformers' one, without global tokens."""
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    d, h = 768, 12
    ours = LongformerAttention(d, h, window=window).to(arguments.device).eval()
    config = LongformerConfig(hidden_size=d, num_attention_heads=h, attention_window=[window])
    peer = LongformerSelfAttention(config, 0).to(arguments.device).eval()
    names = {"query": "q", "key": "k", "value": "v", "query_global": "q_global", "key_global": "k_global"}
    for theirs, name in {**names, "value_global": "v_global"}.items():
        getattr(peer, theirs).load_state_dict(getattr(ours, name).state_dict())
    ours.o = torch.nn.Identity()  # theirs ends before the output projection
    x, nothing = torch.randn(1, n, d, device=arguments.device), torch.zeros(1, n, device=arguments.device)
    masked = {"is_index_masked": nothing > 0, "is_index_global_attn": nothing > 0, "is_global_attn": False}
    works = {
        "LongformerAttention": partial(ours, x),
        "transformers": lambda: peer(x, attention_mask=nothing, **masked)[0],
    }
    return Case("Longformer's self-attention", f"1 x {n} x {d}, window {window}", works, inference=True)


if __name__ == "__main__":
    run("sparse", cases, __doc__)
