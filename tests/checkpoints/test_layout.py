"""Layouts: names there and back, and every way in which a folder may fail to fit."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from papercode.checkpoints.files import read_tensors, write_model
from papercode.checkpoints.layout import Architecture, Layout, Rule


class Body(nn.Module):
    def __init__(self, width=3, n_layers=2):
        super().__init__()
        self.words = nn.Embedding(5, width)
        self.layers = nn.ModuleList(nn.ModuleDict({k: nn.Linear(width, width) for k in "qk"}) for _ in range(n_layers))


class Tagger(nn.Module):
    def __init__(self, body, n_tags):
        super().__init__()
        self.body, self.out = body, nn.Linear(3, n_tags)


def arguments(config):
    return {"width": config.take("width"), "n_layers": config.take("n_layers")}


def configuration(model):
    body = getattr(model, "body", model)
    return {"width": body.words.embedding_dim, "n_layers": len(body.layers)}


LAYOUT = Layout(
    "toy",
    (
        Rule("net.wte", "body.words.weight"),
        Rule("net.h.*.qk.w", ("body.layers.*.q.weight", "body.layers.*.k.weight"), transposed=True),
        Rule("net.h.*.qk.b", ("body.layers.*.q.bias", "body.layers.*.k.bias")),
        Rule("head.w", "out.weight"),
        Rule("head.b", "out.bias"),
    ),
    arguments,
    configuration,
    architectures={
        Body: Architecture("Net", "body."),
        Tagger: Architecture(
            "NetTagger", build=lambda config, kwargs: Tagger(Body(**kwargs), len(config.take("tags")))
        ),
    },
    prefix="net.",
    aliases={r"\.weights$": ".w"},
    ignored=(r"net\.mask",),
    tied={"head.tied": "net.wte"},
)


def folder(path, change=lambda tensors: None, **config):
    """A tagger of three layers, with some change to its tensors."""
    tensors = {"net.wte": torch.randn(5, 3), "head.w": torch.randn(4, 3), "head.b": torch.randn(4)}
    for i in range(3):
        tensors |= {f"net.h.{i}.qk.w": torch.randn(3, 6), f"net.h.{i}.qk.b": torch.randn(6)}
    change(tensors)
    write_model(path, {"model_type": "toy", "width": 3, "n_layers": 3, "tags": "abcd"} | config, tensors)
    return tensors


def test_every_tensor_finds_its_place(tmp_path):
    theirs = folder(tmp_path)
    model = LAYOUT.load(Tagger, tmp_path)
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(model.body.words.weight, theirs["net.wte"])
    assert torch.equal(model.out.bias, theirs["head.b"])
    for i, layer in enumerate(model.body.layers):
        x = torch.randn(2, 3)
        q, k = (x @ theirs[f"net.h.{i}.qk.w"] + theirs[f"net.h.{i}.qk.b"]).chunk(2, -1)
        torch.testing.assert_close((layer["q"](x), layer["k"](x)), (q, k))
        assert layer["q"].weight.is_contiguous()


def test_a_part_alone_out_of_the_whole_and_by_itself(tmp_path):
    theirs = folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toy", "width": 3, "n_layers": 3}))
    body = LAYOUT.load(Body, tmp_path)
    assert torch.equal(body.words.weight, theirs["net.wte"])
    LAYOUT.save(body, tmp_path / "part")
    assert sorted(read_tensors(tmp_path / "part")) == sorted(n.removeprefix("net.") for n in theirs if "net" in n)
    again = LAYOUT.load(Body, tmp_path / "part")
    assert all(torch.equal(a, b) for a, b in zip(body.parameters(), again.parameters(), strict=True))


def test_saving_is_the_inverse(tmp_path):
    theirs = folder(tmp_path)
    model = LAYOUT.load(Tagger, tmp_path)
    LAYOUT.save(model, tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in back)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config == {"model_type": "toy", "architectures": ["NetTagger"], "width": 3, "n_layers": 3}
    model.adapter = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"Tagger has tensors that the layout does not name: adapter\.weight, adapter"):
        LAYOUT.save(model, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_half_of_what_lies_side_by_side_is_named(tmp_path):
    """As when an adapter stands in the place of k alone: q is there, and cannot be written without it."""
    folder(tmp_path)
    model = LAYOUT.load(Tagger, tmp_path)
    model.body.layers[1]["k"] = nn.Sequential(model.body.layers[1]["k"])
    told = r"does not name: body\.layers\.1\.q\.weight, .*body\.layers\.1\.k\.0\.weight"
    with pytest.raises(ValueError, match=told):
        LAYOUT.save(model, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_dtype(tmp_path):
    folder(tmp_path, lambda tensors: tensors.update({n: t.half() for n, t in tensors.items()}))
    assert LAYOUT.load(Tagger, tmp_path).out.weight.dtype == torch.float16
    assert LAYOUT.load(Tagger, tmp_path, torch.float64).out.weight.dtype == torch.float64


def test_old_names_masks_and_tied_copies(tmp_path):
    def change(tensors):
        tensors["net.h.0.qk.weights"] = tensors.pop("net.h.0.qk.w")
        tensors["net.mask"] = torch.ones(1)
        tensors["head.tied"] = tensors["net.wte"].clone()

    theirs = folder(tmp_path, change)
    model = LAYOUT.load(Tagger, tmp_path)
    assert torch.equal(model.body.layers[0]["q"].weight, theirs["net.h.0.qk.weights"].T[:3])
    folder(tmp_path, lambda tensors: tensors.update({"head.tied": torch.zeros(5, 3)}))
    with pytest.raises(ValueError, match=r"has a head\.tied that differs from net\.wte; here they are one"):
        LAYOUT.load(Tagger, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("net.wte"), r"nothing was loaded\. missing: body\.words\.weight$"),
        (lambda t: t.pop("net.h.2.qk.b"), r"missing: body\.layers\.2\.k\.bias, body\.layers\.2\.q\.bias$"),
        (lambda t: t.update({"net.wte": torch.zeros(5, 4)}), r"misshapen: body\.words\.weight \(\(5, 4\) in the file"),
        (lambda t: t.update({"net.h.1.rope": torch.zeros(1)}), r"nothing was loaded\. unexpected: net\.h\.1\.rope$"),
        (lambda t: t.update({"other": torch.zeros(1)}), r"unexpected: other$"),
        (lambda t: t.update({"net.h.x.qk.b": torch.zeros(6)}), r"unexpected: net\.h\.x\.qk\.b$"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(change, message, tmp_path):
    folder(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        LAYOUT.load(Tagger, tmp_path)


def test_another_layer_than_the_configuration_has(tmp_path):
    folder(tmp_path, n_layers=2)
    with pytest.raises(ValueError, match=r"unexpected: net\.h\.2\.qk\.b, net\.h\.2\.qk\.w"):
        LAYOUT.load(Tagger, tmp_path)


def test_another_type_and_attributes_that_are_not_handled(tmp_path):
    folder(tmp_path, model_type="bird")
    with pytest.raises(ValueError, match=r"config\.json has model_type='bird'; Tagger reads 'toy'"):
        LAYOUT.load(Tagger, tmp_path)
    folder(tmp_path, wings=2)
    with pytest.raises(ValueError, match=r"attributes that are not handled: wings=2"):
        LAYOUT.load(Tagger, tmp_path)


def test_a_tensor_that_is_not_there_at_all_stays_on_no_device(tmp_path):
    """A parameter that no rule names would stay on the meta device; that is an error, too."""
    tensors = folder(tmp_path)
    save_file({n: t for n, t in tensors.items() if not n.startswith("head")}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: out\.bias, out\.weight"):
        LAYOUT.load(Tagger, tmp_path)
