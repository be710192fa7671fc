"""GPT-3 against transformers' GPT-2 and GPT-Neo, and its sizes against Table 2.1."""

from functools import partial

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.backends import auto
from papercode.attention.kv_cache import KVCache
from papercode.attention.masks import Band, as_band
from papercode.attention.transformer import PostNorm, attention, causal_mask
from papercode.attention.wrapping import wrapped
from papercode.decoders.gpt2 import GPT2, PreNorm
from papercode.decoders.gpt3 import GPT3, SIZES, _NothingDrawnOnMeta, banded, training_flops

B, N, V, HEADS, D, LAYERS, POSITIONS, WIDTH = 2, 17, 23, 3, 21, 5, 19, 5
SHAPE = {"n_positions": POSITIONS, "d_model": D, "n_heads": HEADS, "n_layers": LAYERS}


CPU = torch.device("cpu")


def model(width=WIDTH, seed=0, **kwargs):
    return randomise(GPT3(V, width=width, **{**SHAPE, **kwargs}), seed).eval()


@pytest.fixture
def tokens():
    return torch.randint(V, (B, N))


# references


def gpt2_like(ours):
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=V, n_positions=POSITIONS, n_embd=D, n_head=HEADS, n_layer=LAYERS, attn_implementation="eager"
        )
    )
    theirs = theirs.double().eval()
    body = theirs.transformer
    pairs = [(body.wte.weight, ours.words.weight), (body.wpe.weight, ours.positions.weight)]
    pairs += [(body.ln_f.weight, ours.norm.gain), (body.ln_f.bias, ours.norm.bias)]
    for block, layer in zip(body.h, ours.layers):
        a, f = layer.attention, layer.feed_forward
        pairs += [(block.attn.c_attn.weight, torch.cat([a.q.weight, a.k.weight, a.v.weight]).T)]
        pairs += [(block.attn.c_attn.bias, torch.cat([a.q.bias, a.k.bias, a.v.bias]))]
        for theirs_map, ours_map in (
            (block.attn.c_proj, a.o),
            (block.mlp.c_fc, f.expand),
            (block.mlp.c_proj, f.contract),
        ):
            pairs += [(theirs_map.weight, ours_map.weight.T), (theirs_map.bias, ours_map.bias)]
        for theirs_norm, residual in zip((block.ln_1, block.ln_2), layer.residuals):
            pairs += [(theirs_norm.weight, residual.norm.gain), (theirs_norm.bias, residual.norm.bias)]
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)
    return theirs


def test_dense_equals_gpt2(parity, tokens):
    ours = model(width=None)
    theirs = gpt2_like(ours)
    with torch.no_grad():
        parity("GPT-3", "transformers.GPT2LMHeadModel", "5 dense layers", ours(tokens), theirs(tokens).logits)
        assert_differs(model(seed=1, width=None)(tokens), theirs(tokens).logits)
        assert_differs(model()(tokens), theirs(tokens).logits)  # the band is seen


def neo_like(ours, kinds, width):
    """GPT-Neo alternates global and local attention; its attention is not scaled, and q, k and v have no bias."""
    config = GPTNeoConfig(
        vocab_size=V,
        max_position_embeddings=POSITIONS,
        hidden_size=D,
        num_layers=len(kinds),
        attention_types=[[[kind], 1] for kind in kinds],
        num_heads=HEADS,
        intermediate_size=4 * D,
        window_size=width,
    )
    config._attn_implementation = "eager"
    theirs = GPTNeoForCausalLM(config).double().eval()
    body = theirs.transformer
    pairs = [(body.wte.weight, ours.words.weight), (body.wpe.weight, ours.positions.weight)]
    pairs += [(body.ln_f.weight, ours.norm.gain), (body.ln_f.bias, ours.norm.bias)]
    with torch.no_grad():
        for block, layer in zip(body.h, ours.layers):
            a, f, inner = layer.attention, layer.feed_forward, block.attn.attention
            for theirs_map, ours_map in ((inner.q_proj, a.q), (inner.k_proj, a.k), (inner.v_proj, a.v)):
                ours_map.bias.zero_()
                pairs.append((theirs_map.weight, ours_map.weight))
            for theirs_map, ours_map in (
                (inner.out_proj, a.o),
                (block.mlp.c_fc, f.expand),
                (block.mlp.c_proj, f.contract),
            ):
                pairs += [(theirs_map.weight, ours_map.weight), (theirs_map.bias, ours_map.bias)]
            for theirs_norm, residual in zip((block.ln_1, block.ln_2), layer.residuals):
                pairs += [(theirs_norm.weight, residual.norm.gain), (theirs_norm.bias, residual.norm.bias)]
        for target, source in pairs:
            target.copy_(source)
    return theirs


@pytest.mark.parametrize("width", [1, 3, 7])
def test_alternating_equals_gpt_neo(parity, tokens, width):
    ours = model(width=width, attend=partial(attention, scale=1.0))
    kinds = ["global", "local", "global", "local", "global"]
    theirs = neo_like(ours, kinds, width)
    with torch.no_grad():
        parity(
            "GPT-3",
            "transformers.GPTNeoForCausalLM",
            f"dense and banded in turn, width {width}",
            ours(tokens),
            theirs(tokens).logits,
            tolerance=1e-6,  # its scores are float32
        )
        assert_differs(ours(tokens), neo_like(ours, ["local", "global"] * 2 + ["local"], width)(tokens).logits)
        assert_differs(ours(tokens), neo_like(ours, kinds, width + 1)(tokens).logits)


# the band


def test_by_hand_a_query_sees_three_keys():
    seen = banded(causal_mask, 3)(5, 5).long().tolist()
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]


def test_banded_keeps_what_the_mask_hides():
    keep = torch.rand(B, N) < 0.7
    for mask in (causal_mask, Band(right=0), Band(2, 0), Band(9, 0), Band(right=0, keep=keep), Band(keep=keep)):
        found = banded(mask, 4)
        assert as_band(found) is not None  # a band stays a band: fast backends know it
        assert torch.equal(found(N, N), mask(N, N, CPU) & Band(3, 0)(N, N))
    written = torch.rand(B, 1, N, N) < 0.7
    tensor = banded(written, 4)
    assert torch.equal(tensor(N, N, CPU), written & Band(3, 0)(N, N))
    both_ways = banded(Band(6, 2), 4)  # not causal: it is cut to the causal band
    assert torch.equal(both_ways(N, N, CPU), Band(3, 0)(N, N))
    made = banded(lambda n, m, device: causal_mask(n, m) & (torch.arange(m) != 1), 4)
    assert torch.equal(made(N, N, CPU), Band(3, 0)(N, N) & (torch.arange(N) != 1))


def test_how_far_it_sees():
    """One banded layer sees its band; in a stack the dense layers see everything, and nobody the future."""
    tokens = torch.randint(V, (1, N))
    changed = tokens.clone()
    changed[:, 4] = (changed[:, 4] + 1) % V
    where = torch.arange(N)
    one_of_two = model(n_layers=2, width=3)
    one_of_two.layers = one_of_two.layers[1:]  # the banded layer stands first now, and is dense

    def states(m):
        return lambda t: m.encode(t)[0]

    assert not leaks(states(model()), tokens, changed, where < 4)
    assert leaks(states(model()), tokens, changed, where == N - 1)
    banded_only = model(n_layers=2, width=3)
    banded_only.layers[0] = _Nothing()
    assert leaks(states(banded_only), tokens, changed, where == 6)
    assert not leaks(states(banded_only), tokens, changed, where > 6)
    assert leaks(states(one_of_two), tokens, changed, where > 6)


class _Nothing(torch.nn.Module):
    def forward(self, x, **kwargs):
        return x


def test_the_fast_backend_gives_the_same():
    long = {"n_positions": 131, "width": 11}
    tokens = torch.randint(V, (B, 131))
    with torch.no_grad():
        assert_same(model(**long, attend=auto)(tokens), model(**long)(tokens))
        assert_differs(model(**long)(tokens), model(n_positions=131, width=12)(tokens))


@pytest.mark.parametrize("width", [None, 1, WIDTH])
def test_cached_equals_uncached(tokens, width):
    gpt = model(width=width)
    with torch.no_grad():
        whole = gpt(tokens)
        with wrapped(gpt, KVCache):
            parts = [gpt(tokens[:, :7])]
            parts += [gpt(tokens[:, i : i + 1], start=i) for i in range(7, N)]
        assert_same(torch.cat(parts, 1), whole)


def test_padding_does_not_leak(tokens):
    keep = torch.ones(B, N, dtype=torch.bool)
    keep[1, :4] = False
    other = torch.where(keep, tokens, (tokens + 1) % V)
    gpt, mask = model(), Band(right=0, keep=keep)
    with torch.no_grad():
        assert torch.equal(gpt(tokens, mask)[keep], gpt(other, mask)[keep])
        assert not torch.equal(gpt(tokens)[keep], gpt(other)[keep])


def test_without_width_it_is_gpt2(tokens):
    ours, older = model(width=None), GPT2(V, **SHAPE).double().eval()
    older.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert torch.equal(ours(tokens), older(tokens))
        assert torch.equal(model(width=N)(tokens), older(tokens))  # a band as wide as the text


# sizes

TABLE_2_1 = [125, 350, 760, 1300, 2700, 6700, 13_000, 175_000]  # millions
D_HEAD = [64, 64, 96, 128, 80, 128, 128, 128]
TABLE_D_1 = [125, 356, 760, 1320, 2650, 6660, 12_850, 174_600]


@pytest.mark.parametrize("name", SIZES)
def test_all_sizes(name):
    with torch.device("meta"):
        gpt = GPT3(**SIZES[name])
    count = sum(p.numel() for p in gpt.parameters())
    assert all(p.is_meta for p in gpt.parameters())
    assert gpt.layers[0].attention.d_k == D_HEAD[list(SIZES).index(name)]
    assert count / 1e6 == pytest.approx(TABLE_2_1[list(SIZES).index(name)], rel=0.02)
    assert count / 1e6 == pytest.approx(TABLE_D_1[list(SIZES).index(name)], rel=0.004)
    d, layers = SIZES[name]["d_model"], SIZES[name]["n_layers"]
    assert count == layers * (12 * d * d + 13 * d) + 2 * d + (50_257 + 2048) * d


def test_training_compute():
    assert training_flops(174_600_000_000) == pytest.approx(3.14e23, rel=0.002)
    assert training_flops(10, 7) == 420


def test_arguments_reach_the_model():
    def found(gpt):
        layer = gpt.layers[0]
        rates = {gpt.dropout.p, layer.attention.dropout, *(residual.dropout.p for residual in layer.residuals)}
        epsilons = {gpt.norm.eps, *(residual.norm.eps for residual in layer.residuals)}
        kinds = {type(residual) for residual in layer.residuals}
        return rates, epsilons, kinds, layer.feed_forward.expand.out_features, layer.attention.d_k

    with torch.device("meta"):
        given = GPT3(V, **SHAPE, d_ff=11, dropout=0.3, eps=0.5, residual=PostNorm)
        default = GPT3(V)
    assert found(given) == ({0.3}, {0.5}, {PostNorm}, 11, 7)
    assert found(default) == ({0.1}, {1e-5}, {PreNorm}, 3072, 64)
    assert (default.width, len(default.layers)) == (None, 12)


def test_nothing_is_drawn_on_meta_and_everything_elsewhere():
    state = torch.get_rng_state()
    with torch.device("meta"):
        GPT3(V, **SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(7)
    ours = GPT3(V, **SHAPE)
    torch.manual_seed(7)
    older = GPT2(V, **SHAPE)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), older.parameters()))
    with torch.device("meta"):  # by keyword, too
        linear = torch.nn.Linear(3, 5)
        with _NothingDrawnOnMeta():
            assert torch.nn.init.zeros_(tensor=linear.weight) is linear.weight
            assert torch.nn.init.kaiming_uniform_(linear.weight, mode="never read") is linear.weight


def test_dense_weights_are_written_and_read(tmp_path, parity):
    """In the layout of GPT-2, by transformers and by us."""
    ours = randomise(GPT3(V, **SHAPE)).eval()
    ours.to_transformers(tmp_path)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    tokens = torch.randint(V, (2, 11), generator=torch.Generator().manual_seed(0))
    back = GPT3.from_pretrained(tmp_path)
    assert back.width is None
    parity("GPT-3", "transformers.GPT2LMHeadModel", "dense, written and read", back(tokens), theirs(tokens).logits)
    assert_differs(GPT3(V, **SHAPE).double().eval()(tokens), theirs(tokens).logits)


# errors


def test_refused(tmp_path):
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        GPT3(V, width=0, **SHAPE)
    with pytest.raises(ValueError, match="width=5: the layout of GPT-2 has no banded layers"):
        model().to_transformers(tmp_path)
    with pytest.raises(ValueError, match="tokens reach position 20, but n_positions=19"):
        model()(torch.zeros(1, 20, dtype=torch.long))
