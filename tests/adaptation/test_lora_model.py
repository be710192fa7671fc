import copy
from functools import partial

import pytest
import torch
from lora_toys import Int8Linear, Model, ids
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_fused import LoRAFusedLinear
from papercode.adaptation.lora_model import adapters, inject, merge, remove, select, unmerge
from papercode.adaptation.lora_report import freeze
from papercode.attention.transformer import MultiHeadAttention


def model(*targets, **kwargs):
    m = Model().double()
    inject(m, targets or ["q", "v"], **{"r": 2, "alpha": 6.0} | kwargs)
    return randomise(m).eval()


def test_names_are_whole_or_ends():
    assert inject(Model(), ["q", "v"], r=2, alpha=2) == ["blocks.0.q", "blocks.1.q", "blocks.0.v", "blocks.1.v"]
    assert inject(Model(), ["blocks.1.v"], r=2, alpha=2) == ["blocks.1.v"]
    assert inject(Model(), ["1.v"], r=2, alpha=2) == ["blocks.1.v"]
    assert inject(Model(), lambda name, m: isinstance(m, nn.Linear) and m.out_features == 7, r=2, alpha=2) == [
        "blocks.0.k", "blocks.0.v", "blocks.1.k", "blocks.1.v",
    ]  # fmt: skip


def test_only_targets_are_replaced():
    m = Model()
    before = dict(m.named_modules())
    inject(m, ["q"], r=2, alpha=2)
    after = dict(m.named_modules())
    assert {name for name in before if before[name] is not after[name]} == {"blocks.0.q", "blocks.1.q"}
    assert after["blocks.0.q"].base is before["blocks.0.q"]


def test_the_model_starts_as_it_was():
    m, tokens = Model().eval(), ids()
    plain = m(tokens)
    inject(m, ["q", "k", "v", "o", "tokens", "head"], r=2, alpha=4)
    assert torch.equal(m(tokens), plain)
    for layer in adapters(m).values():
        nn.init.ones_(layer.B)
    assert_differs(m(tokens), plain)


def test_ranks_per_target_are_one_call_each():
    m = Model()
    inject(m, ["q"], r=3, alpha=9)
    inject(m, ["blocks.0.v"], r=1, alpha=2, dropout=0.25)
    assert {n: (a.r, a.alpha, a.dropout.p) for n, a in adapters(m).items()} == {
        "blocks.0.q": (3, 9.0, 0.0), "blocks.1.q": (3, 9.0, 0.0), "blocks.0.v": (1, 2.0, 0.25),
    }  # fmt: skip


def test_merge_and_unmerge():
    m, tokens = model("q", "v", "tokens"), ids()
    apart, weights = m(tokens), copy.deepcopy(m.state_dict())
    plain = copy.deepcopy(m)
    remove(plain)
    assert not adapters(plain)
    assert_differs(apart, plain(tokens))
    merge(m)
    assert_same(m(tokens), apart)
    assert_differs(m.blocks[0].q.base.weight, weights["blocks.0.q.base.weight"])
    unmerge(m)
    assert_same(m(tokens), apart)
    for name, parameter in m.named_parameters():
        assert_same(parameter, weights[name], 1e-12)


def test_merging_some():
    m, tokens = model(), ids()
    apart = m(tokens)
    merge(m, ["q"])
    assert {n for n, a in adapters(m).items() if a.merged} == {"blocks.0.q", "blocks.1.q"}
    assert_same(m(tokens), apart)
    merge(m, lambda name, layer: not layer.merged)
    assert all(a.merged for a in adapters(m).values())
    unmerge(m, ["blocks.1.v"])
    assert_same(m(tokens), apart)


def test_remove_keeps_a_merged_update():
    m, tokens = model(), ids()
    apart = m(tokens)
    merge(m)
    remove(m)
    assert not adapters(m)
    assert list(m.state_dict()) == list(Model().state_dict())
    assert_same(m(tokens), apart)
    assert inject(m, ["q"], r=2, alpha=2) == ["blocks.0.q", "blocks.1.q"]


def test_a_shared_map_gets_one_adapter():
    m = Model()
    m.blocks[1].q = m.blocks[0].q
    assert inject(m, ["q"], r=2, alpha=2) == ["blocks.0.q", "blocks.1.q"]
    assert m.blocks[0].q is m.blocks[1].q
    assert list(adapters(m)) == ["blocks.0.q"]
    remove(m)
    assert type(m.blocks[1].q) is type(m.blocks[0].q) is nn.Linear


def test_a_layer_may_be_chosen():
    m = nn.ModuleDict({"qkv": nn.Linear(11, 21)})
    inject(m, ["qkv"], r=2, alpha=2, layer=partial(LoRAFusedLinear, parts=(7, 7, 7), adapted=(0, 2)))
    assert m["qkv"].adapted == (0, 2)


@pytest.mark.parametrize(
    ("targets", "r", "error", "message"),
    [
        (["query"], 2, ValueError, r"target 'query' matches no module; their names end in .*q.*v"),
        (["q", "vv"], 2, ValueError, r"target 'vv' matches no module"),
        ([], 2, ValueError, r"targets=\[\] match none"),
        (lambda name, m: False, 2, ValueError, r"match none of \d+ modules"),
        ("q", 2, TypeError, r"targets='q' must be a list of names or a predicate"),
        (["q", "v"], 8, ValueError, r"blocks.0.v: r=8 .* min\(d_in=21, d_out=7\)"),
        (["q", "k"], 0, ValueError, r"blocks.0.q: r=0"),
        (["q", "blocks"], 2, TypeError, r"blocks: cannot adapt ModuleList"),
        (lambda name, m: name == "", 2, ValueError, r"match the model itself"),
    ],
)
def test_wrong_targets_change_nothing(targets, r, error, message):
    m = Model()
    before = list(m.named_modules())
    with pytest.raises(error, match=message):
        inject(m, targets, r=r, alpha=2)
    assert list(m.named_modules()) == before


@pytest.mark.parametrize("targets", [["k", "q"], ["q.base"], lambda name, m: isinstance(m, nn.Linear)])
def test_injecting_twice_is_refused(targets):
    m = model()
    before = list(m.named_modules())
    with pytest.raises(ValueError, match=r"targets match 'blocks.0.q(.base)?', which is adapted already"):
        inject(m, targets, r=2, alpha=2)
    assert list(m.named_modules()) == before


def test_merging_is_all_or_nothing():
    m = model("q", "v")
    m.blocks[1].v.base = Int8Linear(m.blocks[1].v.base)
    before = copy.deepcopy(m.state_dict())
    with pytest.raises(TypeError, match=r"blocks.1.v: cannot merge into Int8Linear"):
        merge(m)
    assert all(torch.equal(before[name], value) for name, value in m.state_dict().items())
    merge(m, ["q"])
    with pytest.raises(ValueError, match=r"blocks.0.q: merged=True"):
        merge(m, ["q", "blocks.0.v"])
    assert not m.blocks[0].v.merged
    with pytest.raises(ValueError, match=r"blocks.0.v: merged=False"):
        unmerge(m)
    assert m.blocks[0].q.merged


def test_a_base_that_misbehaves_undoes_the_merges_before_it():
    m, tokens = model("q", "v"), ids()
    apart = m(tokens)

    class Doubling(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    m.blocks[1].v.base.__class__ = Doubling
    with pytest.raises(ValueError, match=r"blocks.1.v: cannot merge into Doubling"):
        merge(m)
    assert not any(layer.merged for layer in adapters(m).values())
    m.blocks[1].v.base.__class__ = nn.Linear
    assert_same(m(tokens), apart)


def test_tied_weights_are_not_merged():
    m = Model()
    m.head = nn.Linear(21, 13, bias=False)
    m.head.weight = m.tokens.weight
    inject(m, ["tokens"], r=2, alpha=2)
    with pytest.raises(ValueError, match=r"cannot merge 'tokens': tokens.base and head hold one weight"):
        merge(m)


@pytest.mark.parametrize("function", [merge, unmerge, remove, freeze])
def test_without_adapters(function):
    with pytest.raises(ValueError, match="Model has no adapters"):
        function(Model())


def test_select_gives_modules_by_name():
    assert list(select({"a.q": nn.Identity(), "b": nn.Identity()}, ["q"])) == ["a.q"]


# |Theta| = 2 L_LoRA d_model r (section 4.2); layers, d_model, heads, targets, r, count
SIZES = [
    ("GPT-3, Table 4", 96, 12288, 96, ["q", "v"], 1, 4_718_592),
    ("GPT-3, Table 4", 96, 12288, 96, ["q", "v"], 8, 37_748_736),
    ("GPT-3, Table 5", 96, 12288, 96, ["q"], 8, 18_874_368),
    ("GPT-3, Table 5", 96, 12288, 96, ["q", "v"], 4, 18_874_368),
    ("GPT-3, Table 5", 96, 12288, 96, ["q", "k", "v", "o"], 2, 18_874_368),
    ("RoBERTa base", 12, 768, 12, ["q", "v"], 8, 294_912),
    ("RoBERTa large", 24, 1024, 16, ["q", "v"], 8, 786_432),
    ("DeBERTa XXL", 48, 1536, 24, ["q", "v"], 16, 4_718_592),
    ("GPT-2 medium", 24, 1024, 16, ["q", "v"], 4, 393_216),
    ("GPT-2 large", 36, 1280, 20, ["q", "v"], 4, 737_280),
]


@pytest.mark.parametrize(("name", "layers", "d", "h", "targets", "r", "count"), SIZES)
def test_counts_of_the_paper(name, layers, d, h, targets, r, count):
    with torch.device("meta"):
        m = nn.ModuleList(MultiHeadAttention(d, h) for _ in range(layers))
        inject(m, targets, r=r, alpha=r)
    told = freeze(m)
    assert told.trainable == count == 2 * (layers * len(targets)) * d * r
    assert told.frozen == layers * 4 * (d * d + d)


@pytest.mark.parametrize(("r", "recovered"), [(1, False), (2, True)])
def test_a_planted_shift_of_rank_two(r, recovered):
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(13, 11).double()
    z = torch.randn(256, 13, generator=generator, dtype=torch.float64)
    left = torch.randn(11, 2, generator=generator, dtype=torch.float64)
    right = torch.randn(2, 13, generator=generator, dtype=torch.float64)
    shift = left @ right
    target = base(z).detach() + z @ shift.mT
    m = nn.Sequential(LoRALinear(base, r, float(r)))
    freeze(m)
    optimiser = torch.optim.LBFGS([m[0].A, m[0].B], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = (m(z) - target).square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    error = (m[0].delta() - shift).norm() / shift.norm()
    assert (error < 1e-3) == recovered
    if not recovered:  # the best that rank 1 can do on white inputs leaves the second singular value
        values = torch.linalg.svdvals(shift)
        assert error.item() == pytest.approx((values[1] / values.norm()).item(), rel=0.1)
