import copy

import pytest
import torch
from lora_toys import Model, ids
from safetensors.torch import load_file, save_file

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora_checkpoint import load_adapters, save_adapters
from papercode.adaptation.lora_model import adapters, inject, merge, remove, unmerge
from papercode.checkpoints.files import read_safetensors


def model(seed=0, **kwargs):
    m = Model().double()
    inject(m, ["q", "v"], **{"r": 2, "alpha": 6} | kwargs)
    inject(m, ["tokens"], r=3, alpha=1.5)
    return randomise(m, seed).eval()


def copied(m, seed=1):
    """The same model with other adapters."""
    twin = copy.deepcopy(m)
    for i, layer in enumerate(adapters(twin).values()):
        layer.A.data = torch.full_like(layer.A, seed + i)
        layer.B.data = torch.full_like(layer.B, 0.1 * seed)
    return twin


def test_there_and_back(tmp_path):
    m, tokens = model(), ids()
    twin = copied(m)
    assert_differs(twin(tokens), m(tokens))
    save_adapters(m, tmp_path / "a.safetensors")
    load_adapters(twin, tmp_path / "a.safetensors")
    assert_same(twin(tokens), m(tokens), 1e-15)


def test_the_file_holds_adapters_alone(tmp_path):
    save_adapters(model(), tmp_path / "a.safetensors")
    names = {f"{name}.{k}" for name in ("blocks.0.q", "blocks.0.v", "blocks.1.q", "blocks.1.v", "tokens") for k in "AB"}
    assert set(load_file(tmp_path / "a.safetensors")) == names


def test_merged_adapters_are_saved_all_the_same_and_loading_wants_them_unmerged(tmp_path):
    m, tokens = model(), ids()
    out, twin = m(tokens), copied(m)
    merge(m)
    save_adapters(m, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"unmerge before loading: tokens, .*blocks.1.v would keep the old update"):
        load_adapters(m, tmp_path / "a.safetensors")
    load_adapters(twin, tmp_path / "a.safetensors")
    assert_same(twin(tokens), out)
    unmerge(m)
    load_adapters(m, tmp_path / "a.safetensors")


def spoil_missing(tensors):
    del tensors["blocks.0.q.A"], tensors["tokens.B"]


def spoil_unexpected(tensors):
    tensors["blocks.2.q.A"] = torch.zeros(2, 21)


def spoil_shape(tensors):
    tensors["blocks.1.v.B"] = torch.zeros(7, 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_missing, r"nothing was loaded. missing: blocks.0.q.A, tokens.B$"),
        (spoil_unexpected, r"unexpected: blocks.2.q.A$"),
        (spoil_shape, r"misshapen: blocks.1.v.B \(\(7, 3\) in the file, \(7, 2\) here\)$"),
    ],
)
def test_nothing_is_half_loaded(tmp_path, spoil, message):
    m, file = model(), tmp_path / "a.safetensors"
    save_adapters(m, file)
    tensors, header = read_safetensors(file)
    spoil(tensors)
    save_file(tensors, file, header)
    twin = copied(m)
    before = copy.deepcopy(twin.state_dict())
    with pytest.raises(ValueError, match=message):
        load_adapters(twin, file)
    assert all(torch.equal(before[name], value) for name, value in twin.state_dict().items())


def test_another_alpha_is_another_function(tmp_path):
    save_adapters(model(), tmp_path / "a.safetensors")
    other = model(alpha=12)
    with pytest.raises(ValueError, match=r"different: blocks.0.q \(alpha=6 in the file, alpha=12 here\), blocks.0.v"):
        load_adapters(other, tmp_path / "a.safetensors")


def test_other_files_are_refused(tmp_path):
    m = model()
    torch.save({"A": torch.zeros(1)}, tmp_path / "pickle.safetensors")
    with pytest.raises(ValueError, match=r"pickle.safetensors is no safetensors file"):
        load_adapters(m, tmp_path / "pickle.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors has format=None, not 'papercode LoRA 1'"):
        load_adapters(m, tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        load_adapters(m, tmp_path / "nowhere.safetensors")


def test_without_adapters(tmp_path):
    m = model()
    save_adapters(m, tmp_path / "a.safetensors")
    remove(m)
    with pytest.raises(ValueError, match=r"Model has no adapters to save"):
        save_adapters(m, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"unexpected: blocks.0.q.A"):
        load_adapters(m, tmp_path / "a.safetensors")
