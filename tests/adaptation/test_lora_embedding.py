import copy

import peft
import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora_embedding import LoRAEmbedding
from papercode.adaptation.lora_model import adapters, inject

V, D, R, ALPHA = 13, 7, 3, 5.0


def adapted(padding_idx=None, **kwargs):
    layer = randomise(LoRAEmbedding(nn.Embedding(V, D, padding_idx=padding_idx), R, ALPHA, **kwargs)).eval()
    if padding_idx is not None:
        layer.A.data[:, padding_idx] = 0
    return layer


def ids():
    return torch.randint(0, V, (2, 5))


@pytest.mark.parametrize("padding_idx", [None, 4])
def test_parity_with_peft(padding_idx, parity):
    ours, tokens = adapted(padding_idx), torch.arange(V)
    config = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=["0"])
    model = peft.get_peft_model(nn.Sequential(copy.deepcopy(ours.base)), config).double()
    theirs = model.base_model.model[0]
    theirs.lora_embedding_A["default"].data.copy_(ours.A)
    theirs.lora_embedding_B["default"].data.copy_(ours.B)
    parity("LoRAEmbedding", "peft", f"padding_idx={padding_idx}", ours(tokens), theirs(tokens))
    assert_differs(ours(tokens), ours.base(tokens))
    ours(tokens).square().sum().backward()
    theirs(tokens).square().sum().backward()
    assert_same(ours.A.grad, theirs.lora_embedding_A["default"].grad)
    assert_same(ours.B.grad, theirs.lora_embedding_B["default"].grad)
    theirs.merge()
    ours.merge()
    assert_same(ours.base.weight, theirs.base_layer.weight)


def test_it_is_the_linear_map_of_one_hot_vectors():
    layer, tokens = adapted(), ids()
    one_hot = nn.functional.one_hot(tokens, V).double()
    assert_same(layer(tokens), one_hot @ (layer.base.weight + layer.delta().mT))
    assert_same(layer.weight[tokens], layer(tokens))
    assert_differs(layer(tokens), one_hot @ layer.base.weight)


def test_start_is_exact_with_a_gaussian_of_sigma_one_and_b_zero():
    base, tokens = nn.Embedding(4000, D), torch.arange(4000)
    layer = LoRAEmbedding(base, R, ALPHA)
    assert torch.equal(layer(tokens), base(tokens))
    assert layer.A.std().item() == pytest.approx(1, rel=0.03)
    assert (layer.A**4).mean().item() == pytest.approx(3, rel=0.1)
    assert layer.B.abs().max() == 0


def test_the_padding_row_stays_as_it_is():
    base = nn.Embedding(V, D, padding_idx=4)
    layer = LoRAEmbedding(base, R, ALPHA)
    optimiser = torch.optim.SGD([layer.A, layer.B], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        layer(torch.arange(V)).sub(1).square().sum().backward()
        optimiser.step()
    out = layer(torch.arange(V))
    assert torch.equal(out[4], torch.zeros(D))
    assert_differs(out[5], base.weight[5])
    layer.merge()
    assert torch.equal(layer(torch.tensor(4)), torch.zeros(D))


def test_merged_equals_unmerged():
    layer, tokens = adapted(), ids()
    apart, weight = layer(tokens), layer.base.weight.clone()
    layer.merge()
    assert_same(layer(tokens), apart)
    assert_differs(layer.base.weight, weight)
    layer.unmerge()
    assert_same(layer.base.weight, weight, 1e-12)


def test_dropout_leaves_out_whole_tokens():
    layer = adapted(dropout=0.5).train()
    tokens = torch.arange(V).repeat(40)
    update = layer(tokens) - layer.base(tokens)
    full = layer.update(tokens)
    dropped = update.abs().sum(1) == 0
    assert 0.4 < dropped.double().mean() < 0.6
    assert_same(update[~dropped], 2 * full[~dropped])
    assert_same(layer.eval()(tokens) - layer.base(tokens), full)


class Scaled(nn.Embedding):
    def forward(self, ids):
        return 3 * super().forward(ids)


def test_scaled_embeddings_are_not_merged():
    layer = randomise(LoRAEmbedding(Scaled(V, D), R, ALPHA))
    weight = layer.base.weight.clone()
    with pytest.raises(ValueError, match="cannot merge into Scaled"):
        layer.merge()
    assert torch.equal(layer.base.weight, weight)


def test_errors():
    with pytest.raises(TypeError, match="cannot adapt Linear with LoRAEmbedding: it has no num_embeddings"):
        LoRAEmbedding(nn.Linear(V, D), R, ALPHA)
    with pytest.raises(ValueError, match=r"max_norm=2.0 rescales rows"):
        LoRAEmbedding(nn.Embedding(V, D, max_norm=2.0), R, ALPHA)
    with pytest.raises(ValueError, match=r"r=8 .* min\(d_in=13, d_out=7\)"):
        LoRAEmbedding(nn.Embedding(V, D), 8, ALPHA)


def test_inject_takes_it_for_embeddings():
    model = nn.Sequential(nn.Embedding(V, D), nn.Linear(D, 5))
    inject(model, ["0", "1"], r=2, alpha=2)
    assert isinstance(adapters(model)["0"], LoRAEmbedding)
    assert not isinstance(adapters(model)["1"], LoRAEmbedding)
