"""DeBERTa's released weights: written by transformers, read here, and back.

Transformers normalises and scales in float32 whatever the weights are. Held against it as it is, the tolerance is 1e-5;
with its norm and its root made float64, 1e-7.
"""

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from toys import GONE, change, there_and_back, written
from transformers.models.deberta import modeling_deberta as reference_module

from helpers import assert_differs, assert_same
from papercode.attention.backends import sdpa
from papercode.attention.transformer import attention
from papercode.attention.wrapping import wrapped
from papercode.checkpoints.heads import HeadByHead
from papercode.encoders.deberta import DeBERTa, DeBERTaForSentences
from papercode.encoders.deberta_attention import DisentangledAttention
from papercode.encoders.deberta_pretraining import DeBERTaForMaskedLM

V, HEADS = 97, 3


def config(**changes):
    values = {
        "vocab_size": V,
        "hidden_size": 21,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "intermediate_size": 28,
        "max_position_embeddings": 31,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "max_relative_positions": 5,
        "pos_att_type": ["c2p", "p2c"],
        "legacy": False,
    }
    return hf.DebertaConfig(**values | changes)


@pytest.fixture
def exact(monkeypatch):
    """Transformers' norm and scale in the dtype of what they are given."""

    def forward(self, x):
        x = x - x.mean(-1, keepdim=True)
        return self.weight * x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt() + self.bias

    monkeypatch.setattr(reference_module.DebertaLayerNorm, "forward", forward)
    monkeypatch.setattr(
        reference_module,
        "scaled_size_sqrt",
        lambda x, factor: torch.tensor(x.size(-1) * factor, dtype=torch.float64).sqrt(),
    )


def batch(n=11):
    """Texts, and padding at the end of some: they are longer than twice k = 5, so that far distances are one."""
    keep = torch.arange(n) < torch.tensor([n, 7, 2])[:, None].clamp(max=n)
    return torch.randint(V, (3, n)), keep


def states_of(model, x, keep):
    with torch.no_grad():
        return model(x, attention_mask=keep.long()).last_hidden_state


CASES = {
    "longer than k": ({}, 11),
    "shorter than k": ({"max_relative_positions": 13}, 11),
    "as long as k": ({"max_relative_positions": 11}, 11),
    "k of the positions": ({"max_relative_positions": -1, "max_position_embeddings": 7}, 7),
    "c2p alone": ({"pos_att_type": ["c2p"]}, 11),
    "p2c alone": ({"pos_att_type": "p2c"}, 11),
    "neither": ({"pos_att_type": []}, 11),
    "one token": ({}, 1),
    "another eps": ({"layer_norm_eps": 0.1}, 11),
}


@pytest.mark.parametrize(("name", "attend"), [*((name, attention) for name in CASES), ("longer than k", sdpa)])
def test_the_encoder(parity, tmp_path, exact, name, attend):
    changes, n = CASES[name]
    theirs, (x, keep) = written(hf.DebertaModel, config(**changes), tmp_path), batch(n)
    ours = DeBERTa.from_pretrained(tmp_path)
    assert not ours.training
    with torch.no_grad(), wrapped(ours, lambda _: attend):
        label = f"2 layers, padding, {name}, {attend.__name__}"
        found, wanted = ours(x, keep)[keep], states_of(theirs, x, keep)[keep]
        parity("DeBERTa", "transformers.DebertaModel (its float32 made float64)", label, found, wanted)
        if n > 2:
            assert_differs(ours(x)[keep], wanted)  # padding counts
        if changes.get("pos_att_type") != [] and n > 2:
            with torch.no_grad():
                ours.relative.vectors.weight[:] = ours.relative.vectors.weight.flip(0)
            assert_differs(ours(x, keep)[keep], wanted)  # the direction counts


def test_the_encoder_held_against_transformers_as_it_is(parity, tmp_path):
    theirs, (x, keep) = written(hf.DebertaModel, config(), tmp_path), batch()
    found = DeBERTa.from_pretrained(tmp_path)(x, keep)[keep].detach()
    wanted = states_of(theirs, x, keep)[keep]
    parity("DeBERTa", "transformers.DebertaModel", "2 layers, padding", found, wanted, tolerance=1e-5)
    assert_differs(found, wanted, by=1e-12)


def test_the_paper_s_equation_is_not_what_transformers_does(tmp_path, exact):
    """p2c at the distance from key to query, as Eq. 4 has it, is another function of the same weights."""
    theirs, (x, keep) = written(hf.DebertaModel, config(), tmp_path), batch()
    ours = DeBERTa.from_pretrained(tmp_path)
    assert all(layer.attention.same_distance for layer in ours.layers)
    for layer in ours.layers:
        layer.attention.same_distance = False
    assert_differs(ours(x, keep)[keep].detach(), states_of(theirs, x, keep)[keep], by=0.01)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_head_and_the_decoder(parity, tmp_path, exact, legacy):
    """Transformers has the head alone; the table of the decoder is put into the file beside it."""
    theirs, (x, keep) = written(hf.DebertaForMaskedLM, config(legacy=legacy), tmp_path), batch()
    with torch.no_grad():
        if legacy:
            theirs.cls.predictions.decoder.bias.copy_(theirs.cls.predictions.bias)
    with pytest.raises(ValueError, match=r"nothing was loaded\. missing: decoder\.positions\.weight"):
        DeBERTaForMaskedLM.from_pretrained(tmp_path)
    table = torch.randn(31, 21, dtype=torch.float64)
    change(tmp_path, add={"deberta.embeddings.position_embeddings.weight": table})
    ours = DeBERTaForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(ours.decoder.positions.weight, table)
    assert (ours.decoder.passes, ours.decoder.add_states) == (2, True)
    with torch.no_grad():
        wanted = theirs(x, attention_mask=keep.long()).logits[keep]
        found = ours.mlm(ours.encoder(x, keep), ours.encoder.words.weight)[keep]
        label = f"2 layers, padding, without the mask decoder, {'older' if legacy else 'newer'} head"
        reference = "transformers.DebertaForMaskedLM (its float32 made float64)"
        parity("DeBERTaForMaskedLM", reference, label, found, wanted)
        assert_differs(ours(x, keep)[keep], wanted)
    assert_same(DeBERTa.from_pretrained(tmp_path)(x, keep)[keep], ours.encoder(x, keep)[keep])


def test_the_decoder_in_transformers_own_layer(parity, tmp_path, exact):
    """Two passes through its last layer, with the queries of another text: what the authors' decoder does.

    DebertaModel has code for them, z_steps, that cannot run (it transposes a batch); its projections are cut out here.
    """
    theirs, (x, keep) = written(hf.DebertaForMaskedLM, config(), tmp_path), batch()
    table = torch.randn(31, 21, dtype=torch.float64)
    change(tmp_path, add={"deberta.embeddings.position_embeddings.weight": table})
    ours = DeBERTaForMaskedLM.from_pretrained(tmp_path)
    encoder, mask = theirs.deberta.encoder, keep[:, None, None, :] & keep[:, None, :, None]
    with torch.no_grad():
        below = encoder.layer[-2](
            theirs.deberta.embeddings(x, mask=keep.long()),
            mask,
            relative_pos=encoder.get_rel_pos(torch.empty(3, 11, 21)),
            rel_embeddings=encoder.get_rel_embedding(),
        )[0]
        query, layer = below + table[:11], encoder.layer[-1]
        attend = layer.attention.self
        for _ in range(2):
            weight = attend.in_proj.weight.unflatten(0, (HEADS, 3, 7))
            q, k, v = (
                (y @ weight[:, i].flatten(0, 1).T + bias).unflatten(-1, (HEADS, 7)).transpose(1, 2)
                for i, (y, bias) in enumerate(((query, attend.q_bias), (below, 0), (below, attend.v_bias)))
            )
            q = q / 21**0.5
            relative = encoder.get_rel_pos(below)
            bias = attend.disentangled_att_bias(q, k, relative, encoder.get_rel_embedding(), 3)
            weights = (q @ k.mT + bias).masked_fill(~mask, -1e300).softmax(-1)
            middle = layer.attention.output((weights @ v).transpose(1, 2).flatten(2), query)
            query = layer.output(layer.intermediate(middle), middle)
        wanted = theirs.lm_predictions(query, theirs.deberta.embeddings.word_embeddings)[keep]
        reference = "transformers.DebertaForMaskedLM, its layer passed twice (its float32 made float64)"
        parity("DeBERTaForMaskedLM", reference, "2 layers, padding, mask decoder", ours(x, keep)[keep], wanted)
        ours.decoder.passes = 1
        assert_differs(ours(x, keep)[keep], wanted)


def test_sentences(parity, tmp_path, exact):
    made = config(cls_dropout=0.25)
    made.num_labels = 5
    theirs, (x, keep) = written(hf.DebertaForSequenceClassification, made, tmp_path), batch()
    ours = DeBERTaForSentences.from_pretrained(tmp_path)
    assert ours.dropout.p == 0.25
    with torch.no_grad():
        wanted = theirs(x, attention_mask=keep.long()).logits
        reference = "transformers.DebertaForSequenceClassification (its float32 made float64)"
        parity("DeBERTaForSentences", reference, "2 layers, padding, 5 classes", ours(x, keep), wanted)
        assert_differs(ours(x), wanted)


@pytest.mark.parametrize(
    ("ours_of", "theirs_of"),
    [
        (DeBERTa, hf.DebertaModel),
        (DeBERTaForMaskedLM, hf.DebertaForMaskedLM),
        (DeBERTaForSentences, hf.DebertaForSequenceClassification),
    ],
)
@pytest.mark.parametrize("terms", [["c2p", "p2c"], ["c2p"], ["p2c"], []])
def test_round_trip(tmp_path, exact, ours_of, theirs_of, terms):
    theirs, (x, keep) = written(theirs_of, config(pos_att_type=terms), tmp_path / "theirs"), batch()
    if ours_of is DeBERTaForMaskedLM:
        table = torch.randn(31, 21, dtype=torch.float64)
        change(tmp_path / "theirs", add={"deberta.embeddings.position_embeddings.weight": table})
    again = there_and_back(ours_of, theirs_of, tmp_path)
    told = [json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("theirs", "ours")]
    free = {"max_position_embeddings"}  # of which the encoder alone knows nothing
    assert {name for name, value in told[1].items() if told[0].get(name, value) != value} <= free
    with torch.no_grad():
        one, two = (model(x, attention_mask=keep.long())[0] for model in (theirs, again))
    assert_same(one[keep] if one.ndim == 3 else one, two[keep] if two.ndim == 3 else two)


REFUSED = {
    "no relative attention": ({"relative_attention": False}, "relative_attention=False; only True is supported"),
    "not said, which is none": ({"relative_attention": GONE}, "relative_attention=False; only True is supported"),
    "positions in the input": ({"position_biased_input": True}, "position_biased_input=True; only False is supported"),
    "not said, which is some": ({"position_biased_input": GONE}, "position_biased_input=True; only False is"),
    "segments": ({"type_vocab_size": 2}, "type_vocab_size=2; only 0 is supported"),
    "talking heads": ({"talking_head": True}, "talking_head=True; only False is supported"),
    "narrow embeddings": ({"embedding_size": 7}, "embedding_size=7; only 21 is supported"),
    "another activation": ({"hidden_act": "relu"}, "hidden_act='relu'; only 'gelu' is supported"),
    "two dropouts": ({"attention_probs_dropout_prob": 0.7}, "attention_probs_dropout_prob=0.7; only 0.1 is"),
    "a fourth term": ({"pos_att_type": "c2p|p2p"}, r"pos_att_type='c2p\|p2p'; only c2p and p2c are supported"),
    "a term twice": ({"pos_att_type": ["c2p", "c2p"]}, r"only c2p and p2c are supported, each once"),
    "another pooler": ({"pooler_hidden_size": 13}, "pooler_hidden_size=13; only 21 is supported"),
    "pooler's activation": ({"pooler_hidden_act": "tanh"}, "pooler_hidden_act='tanh'; only 'gelu' is supported"),
    "pooler's dropout": ({"pooler_dropout": 0.5}, "pooler_dropout=0.5; only"),
    "buckets": ({"position_buckets": 7}, "not handled: position_buckets=7"),
    "version 2": ({"model_type": "deberta-v2"}, "model_type='deberta-v2'; DeBERTa reads 'deberta'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    written(hf.DebertaModel, config(), tmp_path)
    values, message = REFUSED[name]
    change(tmp_path, **values)
    with pytest.raises(ValueError, match=message):
        DeBERTa.from_pretrained(tmp_path)


def test_what_makes_no_difference_is_passed_over(tmp_path):
    written(hf.DebertaModel, config(), tmp_path)
    change(tmp_path, padding_idx=0, legacy=True, cls_dropout=0.3, talking_head=False, embedding_size=21)
    assert DeBERTa.from_pretrained(tmp_path).layers[0].attention.d_k == 7


def test_a_matrix_that_cannot_be_cut(tmp_path):
    written(hf.DebertaModel, config(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.layer.0.attention.self.in_proj.weight"] = torch.zeros(62, 21)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.k\.weight"):
        DeBERTa.from_pretrained(tmp_path)


def test_head_by_head_by_hand():
    rule = HeadByHead("a", ("q", "k", "v"), n_heads=2)
    q, k, v = rule.split(torch.arange(12.0)[:, None])
    assert [part[:, 0].tolist() for part in (q, k, v)] == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert torch.equal(rule.join([q, k, v]), torch.arange(12.0)[:, None])


def test_what_the_layout_has_no_words_for(tmp_path):
    sizes = {"d_model": 14, "n_heads": 7, "d_ff": 19, "n_layers": 1, "k": 3}
    with pytest.raises(ValueError, match="same_distance=False: the layout knows p2c as in the authors' code only"):
        DeBERTa(V, **sizes).to_transformers(tmp_path)

    def released(*args, **kwargs):
        return DisentangledAttention(*args, **kwargs, same_distance=True)

    encoder = DeBERTa(V, **sizes, make_attention=released)
    for decoder in ({"passes": 1, "add_states": True}, {"add_states": False}):
        with pytest.raises(ValueError, match="the layout knows passes=2 and add_states=True only"):
            DeBERTaForMaskedLM(encoder, **decoder).to_transformers(tmp_path)
    encoder.to_transformers(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pos_att_type"] == ["c2p", "p2c"]
    encoder.relative = torch.nn.Identity()
    with pytest.raises(ValueError, match="relative=Identity: the layout knows a RelativeTable only"):
        encoder.to_transformers(tmp_path)


def test_names_of_the_first_files(tmp_path):
    """Their encoder was called bert."""
    theirs, (x, keep) = written(hf.DebertaModel, config(), tmp_path), batch()
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"bert.{name}": t for name, t in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    found = DeBERTa.from_pretrained(tmp_path)(x, keep)[keep]
    assert_same(found.detach(), states_of(theirs, x, keep)[keep], 1e-5)
