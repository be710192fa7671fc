"""BigBird against transformers, dense and sparse; and where that code departs from the pattern it is named after."""

import logging
import math
from functools import partial

import numpy as np
import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.big_bird import BigBirdAttention
from papercode.attention.big_bird_model import BigBird, extended, internal
from papercode.attention.big_bird_pattern import BlockPattern, block_sparse_mask, random_blocks
from papercode.attention.transformer import attention

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import BigBirdConfig, BigBirdModel

V, D, HEADS, D_FF, LAYERS, PLACES, BLOCK, RANDOM = 29, 14, 2, 19, 3, 96, 4, 2
F64 = torch.float64
logging.getLogger("transformers").setLevel(logging.ERROR)


def reference(attention_type):
    config = BigBirdConfig(
        vocab_size=V,
        hidden_size=D,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=D_FF,
        max_position_embeddings=PLACES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        attention_type=attention_type,
        sep_token_id=3,
    )
    return randomise(BigBirdModel(config))


def ours(theirs, attend):
    """Our model with the parameters of theirs."""
    model = BigBird(
        V, d_model=D, n_heads=HEADS, d_ff=D_FF, n_layers=LAYERS, n_positions=PLACES, dropout=0.0, attend=attend
    ).double()
    names = {
        "tokens": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "segments": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
        "pooler": "pooler",
    }
    inside = {
        "attention.q": "attention.self.query",
        "attention.k": "attention.self.key",
        "attention.v": "attention.self.value",
        "attention.o": "attention.output.dense",
        "residuals.0.norm": "attention.output.LayerNorm",
        "feed_forward.expand": "intermediate.dense",
        "feed_forward.contract": "output.dense",
        "residuals.1.norm": "output.LayerNorm",
    }
    for layer in range(LAYERS):
        names |= {f"layers.{layer}.{a}": f"encoder.layer.{layer}.{b}" for a, b in inside.items()}
    state = {}
    for a, b in names.items():
        module = theirs.get_submodule(b)
        for name, value in module.named_parameters():
            kind = "gain" if b.endswith("LayerNorm") and name == "weight" else name
            state[f"{a}.{kind}"] = value
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["extra"], [])
    return model


def text(n):
    keep = torch.arange(n) < torch.tensor([[n], [n - 7]])
    return torch.randint(V, (2, n)), keep, torch.randint(2, (2, n))


def theirs_on(model, tokens, keep, segments):
    found = model(input_ids=tokens, attention_mask=keep.double(), token_type_ids=segments)
    return found.last_hidden_state, found.pooler_output


def drawn_by(theirs, layer, n_blocks):
    """The random blocks that transformers draws while training, as it draws them."""
    attention_layer = theirs.encoder.layer[layer].attention.self
    n = n_blocks * BLOCK
    np.random.seed(attention_layer.seed)
    plan = attention_layer._get_rand_attn_plan(n, BLOCK, RANDOM)
    drawn = attention_layer._bigbird_block_rand_mask_with_head(n, n, BLOCK, BLOCK, HEADS, *plan)
    inner = torch.tensor(np.stack(drawn)).long()
    return torch.nn.functional.pad(inner, (0, 0, 1, 1))  # theirs has no rows for the two global blocks


def same_blocks(theirs):
    """Our attention for a layer, with the blocks that theirs draws for it."""

    def attend(layer):
        return BigBirdAttention(BlockPattern(BLOCK, random=lambda n_blocks, n_heads: drawn_by(theirs, layer, n_blocks)))

    return attend


def test_full_attention_equals_transformers(parity):
    theirs = reference("original_full").eval()
    model, (tokens, keep, segments) = ours(theirs, lambda layer: attention), text(23)
    expected, pooled = theirs_on(theirs, tokens, keep, segments)
    x = model(tokens, keep, segments)
    parity("BigBird", "transformers.BigBirdModel", "full attention", [x, model.pooled(x)], [expected, pooled])
    assert_differs(model(tokens, keep), expected)
    assert_differs(model(tokens, None, segments), expected)


@pytest.mark.parametrize("n", [60, 58, 80])
def test_block_sparse_equals_transformers_in_training(n, parity):
    """With the same random blocks; 58 is no multiple of the block, which both sides pad and cut."""
    theirs = reference("block_sparse").train()
    model, (tokens, keep, segments) = ours(theirs, same_blocks(theirs)), text(n)
    expected, pooled = theirs_on(theirs, tokens, keep, segments)
    x = model(tokens, keep, segments)
    mine, other = [x[keep], model.pooled(x)], [expected[keep], pooled]  # theirs has zeros where padding attends
    parity("BigBird", "transformers.BigBirdModel", f"block sparse, the same random blocks, {n} tokens", mine, other)
    others = ours(theirs, lambda layer: BigBirdAttention(BlockPattern(BLOCK)))
    assert_differs(others(tokens, keep, segments)[keep], expected[keep])


def test_in_training_transformers_draws_among_the_first_blocks_only():
    """Of any length beyond 2r + 5 blocks; the paper's uniform draw reaches everywhere."""
    blocks = drawn_by(reference("block_sparse").train(), 0, 100)[:, 1:-1]
    assert blocks.max() < 2 * RANDOM + 5 - 1
    assert random_blocks(100, HEADS, RANDOM).max() > 90


def test_in_evaluation_transformers_counts_the_first_block_again_for_every_random_one():
    """No random blocks, and a bias of log(1 + r) for the first block: that is what its evaluation computes."""
    theirs = reference("block_sparse").eval()
    tokens, keep, segments = text(60)
    expected, _ = theirs_on(theirs, tokens, keep, segments)
    pattern = BlockPattern(BLOCK, random=None)

    def counted_again(q, k, v, *, mask, **kwargs):
        n = q.shape[2]
        bias = torch.zeros(n, n, dtype=q.dtype)
        bias[BLOCK:-BLOCK, :BLOCK] = math.log(1 + RANDOM)
        return attention(q, k, v, mask=mask & block_sparse_mask(pattern, n, q.shape[1]), bias=bias, **kwargs)

    assert_same(ours(theirs, lambda layer: counted_again)(tokens, keep, segments)[keep], expected[keep])
    once = ours(theirs, lambda layer: BigBirdAttention(pattern))
    assert_differs(once(tokens, keep, segments)[keep], expected[keep])
    drawn = ours(theirs, same_blocks(theirs.train()))
    assert_differs(drawn(tokens, keep, segments)[keep], expected[keep])


def test_the_old_plan_lists_the_last_block_as_random_too():
    """For 1024 tokens both codes cut a plan for 4096, in which the last block of 1024 is one that may be drawn."""
    layer = reference("block_sparse").train().encoder.layer[0].attention.self
    np.random.seed(0)
    drawn = layer._bigbird_block_rand_mask(4096, 4096, 64, 64, 3, last_idx=1024)[:14]
    assert drawn.max() == 15
    twice = (drawn == 15).any(1).mean()
    assert 0.1 < twice < 0.5


def test_parameters_of_the_base_model():
    with torch.device("meta"):
        assert sum(p.numel() for p in BigBird().parameters()) == 127_468_800
        assert sum(p.numel() for p in BigBird(n_global=256, attend=extended).parameters()) == 127_468_800 + 256 * 768


def test_the_settings_of_table_8():
    first, second = internal(0).pattern, internal(1).pattern
    assert (first.block, first.window, first.first, first.last, first.extra) == (64, 3, 1, 1, 0)
    assert first.random(40, 2).shape == (2, 40, 3)
    assert not torch.equal(first.random(40, 2), second.random(40, 2))
    etc = extended(0).pattern
    assert (etc.block, etc.window, etc.first, etc.last, etc.extra, etc.random) == (84, 3, 0, 0, 256, None)


def test_extra_tokens_see_and_are_seen_and_are_dropped():
    pattern = BlockPattern(BLOCK, first=0, last=0, extra=3, random=None)
    kwargs = {"d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": 2, "n_positions": PLACES, "n_global": 3}
    model = randomise(BigBird(V, **kwargs, dropout=0.0, attend=lambda layer: BigBirdAttention(pattern)))
    dense = BigBird(V, **kwargs, dropout=0.0, attend=lambda layer: partial(masked, pattern)).double()
    dense.load_state_dict(model.state_dict())
    tokens, keep, segments = text(41)
    x = model(tokens, keep, segments)
    assert x.shape == (2, 41, D)
    assert_same(x, dense(tokens, keep, segments))
    far = tokens.clone()
    far[:, 30] = (far[:, 30] + 1) % V
    assert_differs(model(far, keep, segments)[:, 2], x[:, 2])  # in two layers, by way of the extra tokens
    short = randomise(BigBird(V, **kwargs | {"n_layers": 1}, attend=lambda layer: BigBirdAttention(pattern))).eval()
    assert_same(short(far, keep, segments)[:, 2], short(tokens, keep, segments)[:, 2])


def masked(pattern, q, k, v, *, mask=None, **kwargs):
    both = block_sparse_mask(pattern, q.shape[2], q.shape[1])
    return attention(q, k, v, mask=both if mask is None else both & mask, **kwargs)


def test_padding_does_not_leak():
    model = randomise(BigBird(V, d_model=D, n_heads=HEADS, d_ff=D_FF, n_layers=2, n_positions=PLACES)).eval()
    tokens, keep, _ = text(41)
    changed = torch.where(keep, tokens, 0)
    assert torch.equal(model(changed, keep)[keep], model(tokens, keep)[keep])


def test_too_long():
    model = BigBird(V, d_model=D, n_heads=HEADS, d_ff=D_FF, n_layers=1, n_positions=8)
    with pytest.raises(ValueError, match="tokens has 9 positions, but this model was made for n_positions=8"):
        model(torch.zeros(1, 9, dtype=torch.long))
    assert model(torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8, D)


def test_without_layers_there_are_the_embeddings_of_the_tokens():
    """Extra tokens stand before them and are gone; dropout falls on the embeddings; weights start small."""
    kwargs = {"d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": 0, "n_positions": PLACES, "dropout": 0.5}
    model = randomise(BigBird(V, **kwargs, n_global=3)).eval()
    tokens, _, segments = text(23)
    x = model.tokens(tokens) + model.positions.weight[:23] + model.segments(segments)
    assert_same(model(tokens, None, segments), model.norm(x))
    dropped = model.train()(tokens, None, segments)
    assert 0.3 < (dropped == 0).double().mean() < 0.7
    assert BigBird(500, **kwargs).tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
