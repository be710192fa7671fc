import copy
import json

import peft
import pytest
import torch
from lora_toys import Model, ids
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers import assert_differs, assert_same, randomise
from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_fused import LoRAFusedLinear
from papercode.adaptation.lora_model import adapters, inject, merge
from papercode.adaptation.lora_peft import load_peft, save_peft


def plain(seed=0):
    return randomise(Model(), seed).eval()


def adapted():
    m = plain()
    inject(m, ["q", "blocks.1.v"], r=2, alpha=8)
    inject(m, ["blocks.0.v"], r=3, alpha=1.5)
    inject(m, ["tokens", "blocks.1.o"], r=2, alpha=5)
    for i, layer in enumerate(adapters(m).values()):
        torch.manual_seed(i)
        nn.init.normal_(layer.A)
        nn.init.normal_(layer.B)
    m.tokens.A.data[:, 0] = 0
    return m


def test_peft_reads_ours(tmp_path, parity):
    ours, tokens = adapted(), ids()
    save_peft(ours, tmp_path, base_model="some/model")
    theirs = peft.PeftModel.from_pretrained(plain(), tmp_path)
    parity("LoRA", "peft", "peft reads what we saved", ours(tokens), theirs(tokens))
    assert_differs(theirs(tokens), plain()(tokens))
    assert theirs.peft_config["default"].base_model_name_or_path == "some/model"
    merge(ours)
    assert_same(theirs.merge_and_unload()(tokens), ours(tokens))


PATTERNS = {
    "rank_pattern": {"blocks.0.v": 3, "^blocks.1.q": 1},
    "alpha_pattern": {"q": 6, "blocks.0.v": 2},
}


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("target_modules", [["q", "v", "tokens"], r"(blocks\.\d\.(q|v))|tokens"])
def test_we_read_pefts(tmp_path, target_modules, rslora, parity):
    config = peft.LoraConfig(
        r=2, lora_alpha=7, target_modules=target_modules, exclude_modules=["blocks.1.v"], use_rslora=rslora, **PATTERNS
    )
    theirs, tokens = peft.get_peft_model(plain(), config), ids()
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    theirs.save_pretrained(tmp_path)
    ours = plain()
    assert load_peft(ours, tmp_path) == ["tokens", "blocks.0.q", "blocks.0.v", "blocks.1.q"]
    assert {n: a.r for n, a in adapters(ours).items()} == {
        "tokens": 2, "blocks.0.q": 2, "blocks.0.v": 3, "blocks.1.q": 1,
    }  # fmt: skip
    targets = "names" if isinstance(target_modules, list) else "a pattern"
    configuration = f"we read what peft saved, rslora={rslora}, targets by {targets}"
    parity("LoRA", "peft", configuration, ours(tokens), theirs.eval()(tokens))
    assert_differs(ours(tokens), plain()(tokens))
    merge(ours)
    assert_same(ours(tokens), theirs.merge_and_unload()(tokens))


def test_and_back_through_both(tmp_path):
    ours, again, tokens = adapted(), plain(), ids()
    save_peft(ours, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(plain(), tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    load_peft(again, tmp_path / "theirs")
    assert {n: (a.r, a.alpha) for n, a in adapters(again).items()} == {
        n: (a.r, a.alpha) for n, a in adapters(ours).items()
    }
    assert_same(again(tokens), ours(tokens), 1e-15)


def test_the_layout_is_pefts(tmp_path):
    ours = plain()
    inject(ours, ["q", "tokens"], r=2, alpha=8)
    save_peft(ours, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q", "tokens"]  # as people write them, where that means the same modules
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (2, 8, {}, {})
    shapes = {name: tuple(t.shape) for name, t in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert shapes == {
        "base_model.model.tokens.lora_embedding_A": (2, 13),
        "base_model.model.tokens.lora_embedding_B": (21, 2),
        "base_model.model.blocks.0.q.lora_A.weight": (2, 21),
        "base_model.model.blocks.0.q.lora_B.weight": (21, 2),
        "base_model.model.blocks.1.q.lora_A.weight": (2, 21),
        "base_model.model.blocks.1.q.lora_B.weight": (21, 2),
    }


def test_ambiguous_ends_are_written_out(tmp_path):
    ours = nn.Sequential(nn.Linear(7, 7), nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 7))).double()
    base, x = copy.deepcopy(ours), torch.randn(3, 7, dtype=torch.float64)
    inject(ours, lambda name, _: name == "0", r=2, alpha=4)  # and not "1.0", which ends in 0 too
    inject(ours, lambda name, _: name == "1.1", r=1, alpha=3)
    randomise(ours, 3)
    base.load_state_dict({k.replace("base.", ""): v for k, v in ours.state_dict().items() if k[-2:] not in (".A", ".B")
                          and "extra" not in k})  # fmt: skip
    save_peft(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_same(theirs(x), ours(x))
    assert load_peft(base, tmp_path) == ["0", "1.1"]
    assert_same(base(x), ours(x))


def test_conv1d_and_a_fused_projection(tmp_path):
    base = nn.Sequential(Conv1D(15, 11), Conv1D(7, 15)).double()
    ours, x = copy.deepcopy(base), torch.randn(3, 11, dtype=torch.float64)
    ours[0] = LoRAFusedLinear(ours[0], 2, 6, parts=(7, 3, 5), adapted=(0, 2))
    ours[1] = LoRALinear(ours[1], 2, 6)
    for layer in adapters(ours).values():
        nn.init.normal_(layer.B)
    save_peft(ours, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_same(theirs(x), ours(x))
    assert_differs(theirs(x), base(x))
    load_peft(base, tmp_path)
    assert (type(base[0]), base[0].r, base[0].alpha) == (LoRALinear, 4, 12)
    assert_same(base(x), ours(x))


def test_dropout_goes_along(tmp_path):
    ours = plain()
    inject(ours, ["q"], r=2, alpha=8, dropout=0.25)
    save_peft(ours, tmp_path)
    again = plain()
    load_peft(again, tmp_path)
    assert {layer.dropout.p for layer in adapters(again).values()} == {0.25}
    inject(ours, ["v"], r=2, alpha=8, dropout=0.5)
    with pytest.raises(ValueError, match=r"adapters differ in dropout=\[0.25, 0.5\]"):
        save_peft(ours, tmp_path)


def change(folder, **kwargs):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | kwargs))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"use_dora": True}, r"asks for more than plain LoRA: \{'use_dora': True\}"),
        ({"bias": "all"}, r"\{'bias': 'all'\}"),
        ({"modules_to_save": ["head"]}, r"'modules_to_save': \['head'\]"),
        ({"init_lora_weights": "pissa"}, r"'init_lora_weights': 'pissa'"),
        ({"layers_to_transform": [0]}, r"'layers_to_transform': \[0\]"),
        ({"something_new": 3}, r"'something_new': 3"),
        ({"peft_type": "IA3"}, r"'peft_type': 'IA3'"),
        ({"target_modules": None}, r"lacks target_modules"),
        ({"r": 0}, r"lacks r"),
        ({"target_modules": ["query"]}, r"target_modules=\['query'\] .* match no module"),
        ({"target_modules": ["q", "v"]}, r"missing: base_model.model.blocks.0.v.lora_A.weight"),
        ({"exclude_modules": ["blocks.0.q"]}, r"unexpected: base_model.model.blocks.0.q.lora_A.weight"),
        ({"r": 3}, r"misshapen: .*blocks.0.q.lora_A.weight \(\(2, 21\) in the file, \(3, 21\) here\)"),
        ({"target_modules": ["q", "blocks"]}, r"blocks: cannot adapt ModuleList"),
        ({"rank_pattern": {"blocks.1.q": 22}}, r"blocks.1.q: r=22"),
    ],
)
def test_what_is_not_understood_is_refused_and_changes_nothing(tmp_path, kwargs, message):
    ours = plain()
    inject(ours, ["q"], r=2, alpha=8)
    save_peft(ours, tmp_path)
    change(tmp_path, **kwargs)
    m = plain()
    before, modules = copy.deepcopy(m.state_dict()), list(m.named_modules())
    with pytest.raises((ValueError, TypeError), match=message):
        load_peft(m, tmp_path)
    assert list(m.named_modules()) == modules
    assert all(torch.equal(before[name], value) for name, value in m.state_dict().items())


def test_files(tmp_path):
    ours = plain()
    inject(ours, ["q"], r=2, alpha=8)
    save_peft(ours, tmp_path)
    with pytest.raises(ValueError, match=r"Model has 2 adapters already"):
        load_peft(ours, tmp_path)
    with pytest.raises(ValueError, match=r"Model has no adapters to save"):
        save_peft(plain(), tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors.pop("base_model.model.blocks.1.q.lora_B.weight")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"missing: base_model.model.blocks.1.q.lora_B.weight$"):
        load_peft(plain(), tmp_path)
    torch.save(tensors, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        load_peft(plain(), tmp_path)


def test_a_map_used_twice_has_no_place_in_pefts_folder(tmp_path):
    ours = plain()
    ours.blocks[1].q = ours.blocks[0].q
    inject(ours, ["q"], r=2, alpha=8)
    with pytest.raises(ValueError, match=r"blocks.0.q is used under several names"):
        save_peft(ours, tmp_path)
