"""DeBERTaV3's released weights: written by transformers, read here, and back.

Transformers computes the scale in float32 whatever the weights are; for 1e-7 it is made float64.
"""

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from toys import GONE, change, there_and_back, written
from transformers.models.deberta_v2 import modeling_deberta_v2 as reference_module

from helpers import assert_differs, assert_same, randomise
from papercode.attention.backends import sdpa
from papercode.attention.transformer import attention
from papercode.attention.wrapping import wrapped
from papercode.encoders.deberta_attention import RelativeTable
from papercode.encoders.deberta_v3 import DeBERTaV3, DeBERTaV3ForMaskedLM, DeBERTaV3ForSentences
from papercode.encoders.deberta_v3_pretraining import (
    DeBERTaV3Discriminator,
    DeBERTaV3ForPreTraining,
    DeltaEmbedding,
)

V, D = 97, 21


def config(**changes):
    values = {
        "vocab_size": V,
        "hidden_size": D,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 28,
        "max_position_embeddings": 11,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "max_relative_positions": -1,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "legacy": False,
    }
    return hf.DebertaV2Config(**values | changes)


@pytest.fixture
def exact(monkeypatch):
    """Transformers' scale in float64."""
    monkeypatch.setattr(
        reference_module,
        "scaled_size_sqrt",
        lambda x, factor: torch.tensor(x.size(-1) * factor, dtype=torch.float64).sqrt(),
    )


def batch(n=17):
    """Texts, and padding at the end of some."""
    keep = torch.arange(n) < torch.tensor([n, 7, 2])[:, None].clamp(max=n)
    return torch.randint(V, (3, n)), keep


def states_of(model, x, keep):
    with torch.no_grad():
        return model(inputs_embeds=model.embeddings.word_embeddings(x), attention_mask=keep.long()).last_hidden_state


# positions end at max_position_embeddings in transformers' embeddings even if there are none: so no text is longer
CASES = {
    "beyond the buckets' end": ({"max_relative_positions": 7, "max_position_embeddings": 31}, 17),
    "up to the buckets' end": ({"max_position_embeddings": 17}, 17),
    "among single distances": ({"max_position_embeddings": 31, "position_buckets": 16}, 7),
    "an odd number of buckets": ({"max_position_embeddings": 17, "position_buckets": 5}, 17),
    "no buckets": ({"max_position_embeddings": 31, "position_buckets": -1, "max_relative_positions": 5}, 17),
    "no norm on the table": ({"max_position_embeddings": 31, "norm_rel_ebd": "none"}, 17),
    "c2p alone": ({"max_position_embeddings": 31, "pos_att_type": ["c2p"]}, 17),
    "p2c alone": ({"max_position_embeddings": 31, "pos_att_type": "p2c"}, 17),
    "neither": ({"max_position_embeddings": 31, "pos_att_type": []}, 17),
    "one token": ({}, 1),
    "another eps": ({"max_position_embeddings": 31, "layer_norm_eps": 0.1}, 17),
}


@pytest.mark.parametrize(
    ("name", "attend"), [*((name, attention) for name in CASES), ("beyond the buckets' end", sdpa)]
)
def test_the_encoder(parity, tmp_path, exact, name, attend):
    changes, n = CASES[name]
    theirs, (x, keep) = written(hf.DebertaV2Model, config(**changes), tmp_path), batch(n)
    ours = DeBERTaV3.from_pretrained(tmp_path)
    with torch.no_grad(), wrapped(ours, lambda _: attend):
        label = f"2 layers, padding, {name}, {attend.__name__}"
        found, wanted = ours(x, keep)[keep], states_of(theirs, x, keep)[keep]
        parity("DeBERTaV3", "transformers.DebertaV2Model (its scale made float64)", label, found, wanted)
        if n > 2:
            assert_differs(ours(x)[keep], wanted)  # padding counts
        if changes.get("pos_att_type") != [] and n > 2:
            ours.relative.vectors.weight[:] = ours.relative.vectors.weight.flip(0)
            assert_differs(ours(x, keep)[keep], wanted)  # the direction counts


def test_the_encoder_held_against_transformers_as_it_is(parity, tmp_path):
    theirs, (x, keep) = written(hf.DebertaV2Model, config(max_position_embeddings=17), tmp_path), batch()
    found = DeBERTaV3.from_pretrained(tmp_path)(x, keep)[keep].detach()
    wanted = states_of(theirs, x, keep)[keep]
    parity("DeBERTaV3", "transformers.DebertaV2Model", "2 layers, padding", found, wanted, tolerance=1e-6)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_head_and_the_decoder(parity, tmp_path, exact, legacy):
    """Two passes through transformers' own last layer, asked from positions, and its head."""
    made = config(max_position_embeddings=17, legacy=legacy)
    theirs, (x, keep) = written(hf.DebertaV2ForMaskedLM, made, tmp_path), batch()
    table = torch.randn(17, D, dtype=torch.float64)
    with torch.no_grad():
        if legacy:
            theirs.cls.predictions.decoder.bias.copy_(theirs.cls.predictions.bias)
    with pytest.raises(ValueError, match=r"missing: decoder\.positions\.weight"):
        DeBERTaV3ForMaskedLM.from_pretrained(tmp_path)
    change(tmp_path, add={"deberta.embeddings.position_embeddings.weight": table})
    ours, encoder = DeBERTaV3ForMaskedLM.from_pretrained(tmp_path), theirs.deberta.encoder
    with torch.no_grad():
        mask, embedded = encoder.get_attention_mask(keep.long()), theirs.deberta.embeddings(x, mask=keep.long())
        rest = {"relative_pos": encoder.get_rel_pos(embedded), "rel_embeddings": encoder.get_rel_embedding()}
        below = encoder.layer[0](embedded, mask, **rest)[0]
        query = below + table
        for _ in range(2):
            query = encoder.layer[1](below, mask, query_states=query, **rest)[0]
        words = theirs.deberta.embeddings.word_embeddings
        wanted = (theirs.cls(query) if legacy else theirs.lm_predictions(query, words))[keep]
        reference = "transformers.DebertaV2ForMaskedLM, its last layer passed twice (its scale made float64)"
        label = f"2 layers, padding, mask decoder, {'older' if legacy else 'newer'} head"
        parity("DeBERTaV3ForMaskedLM", reference, label, ours(x, keep)[keep], wanted)
        plain = theirs(x, attention_mask=keep.long()).logits[keep]
        assert_same(ours.mlm(ours.encoder(x, keep), ours.encoder.words.weight)[keep], plain)
        assert_differs(ours(x, keep)[keep], plain)


def test_sentences(parity, tmp_path, exact):
    made = config(max_position_embeddings=17, cls_dropout=0.25)
    made.num_labels = 5
    theirs, (x, keep) = written(hf.DebertaV2ForSequenceClassification, made, tmp_path), batch()
    ours = DeBERTaV3ForSentences.from_pretrained(tmp_path)
    assert ours.dropout.p == 0.25
    with torch.no_grad():
        wanted = theirs(x, attention_mask=keep.long()).logits
        reference = "transformers.DebertaV2ForSequenceClassification (its scale made float64)"
        parity("DeBERTaV3ForSentences", reference, "2 layers, padding, 5 classes", ours(x, keep), wanted)
        assert_differs(ours(x), wanted)


@pytest.mark.parametrize(
    ("ours_of", "theirs_of"),
    [
        (DeBERTaV3, hf.DebertaV2Model),
        (DeBERTaV3ForMaskedLM, hf.DebertaV2ForMaskedLM),
        (DeBERTaV3ForSentences, hf.DebertaV2ForSequenceClassification),
    ],
)
@pytest.mark.parametrize(
    "changes", [{}, {"position_buckets": -1, "norm_rel_ebd": "none", "pos_att_type": ["c2p"]}, {"pos_att_type": []}]
)
def test_round_trip(tmp_path, exact, ours_of, theirs_of, changes):
    made = config(max_position_embeddings=17, **changes)
    theirs, (x, keep) = written(theirs_of, made, tmp_path / "theirs"), batch()
    if ours_of is DeBERTaV3ForMaskedLM:
        table = torch.randn(17, D, dtype=torch.float64)
        change(tmp_path / "theirs", add={"deberta.embeddings.position_embeddings.weight": table})
    again = there_and_back(ours_of, theirs_of, tmp_path)
    with torch.no_grad():
        one, two = (model(x, attention_mask=keep.long())[0] for model in (theirs, again))
    assert_same(one[keep] if one.ndim == 3 else one, two[keep] if two.ndim == 3 else two)


def discriminator():
    encoder = DeBERTaV3(V, k=4, max_distance=17, d_model=D, n_heads=3, d_ff=28, n_layers=2)
    return randomise(DeBERTaV3Discriminator(encoder)).eval()


@pytest.mark.parametrize("spelled", ["classifier", "classifer"])
def test_the_discriminator_and_the_encoder_out_of_it(tmp_path, exact, spelled):
    """The released files hold the encoder and both heads; authors' code spells one name without an i."""
    model, (x, keep) = discriminator(), batch()
    model.to_transformers(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    names = {name for name in tensors if not name.startswith("deberta.")}
    parts = ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias", "classifier.weight", "classifier.bias")
    assert names == {f"mask_predictions.{part}" for part in parts}
    generator = {
        "lm_predictions.lm_head.bias": torch.zeros(V),
        "lm_predictions.lm_head.dense.weight": torch.zeros(D, D),
    }
    renamed = {name.replace("classifier", spelled): tensor for name, tensor in tensors.items()} | generator
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    again = DeBERTaV3Discriminator.from_pretrained(tmp_path)
    assert_same(again(x, keep), model(x, keep), 1e-12)
    assert_same(DeBERTaV3.from_pretrained(tmp_path)(x, keep), model.encoder(x, keep), 1e-12)
    theirs = hf.DebertaV2Model.from_pretrained(tmp_path, dtype=torch.float64).eval()
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["position_buckets"] == 4
    dense, norm, last = (
        [tensors[f"mask_predictions.{part}.{kind}"] for kind in ("weight", "bias")]
        for part in ("dense", "LayerNorm", "classifier")
    )
    states = states_of(theirs, x, keep)  # and its head, from the file
    summed = torch.nn.functional.layer_norm(states + states[:, :1], (D,), *norm, eps=1e-7)
    verdicts = torch.nn.functional.gelu(summed @ dense[0].T + dense[1]) @ last[0][0] + last[1]
    assert_same(verdicts[keep], model(x, keep)[keep].detach())
    assert_same(states_of(theirs, x, keep)[keep], model.encoder(x, keep)[keep].detach())


def test_what_was_trained_with_a_change_is_written_once_it_is_merged(tmp_path):
    encoder = DeBERTaV3(V, k=4, max_distance=17, d_model=D, n_heads=3, d_ff=28, n_layers=1)
    both = randomise(DeBERTaV3ForPreTraining(DeBERTaV3ForMaskedLM(encoder, 31), discriminator()))
    kept, (x, keep) = both.discriminator.eval(), batch()
    assert isinstance(kept.encoder.words, DeltaEmbedding)
    with pytest.raises(ValueError, match=r"tensors that the layout does not name: .*words\.delta"):
        kept.to_transformers(tmp_path)
    before = kept(x, keep)
    kept.encoder.words = kept.encoder.words.merged()
    kept.to_transformers(tmp_path)
    assert_same(DeBERTaV3Discriminator.from_pretrained(tmp_path)(x, keep), before)


REFUSED = {
    "the convolution of version 2": ({"conv_kernel_size": 3, "conv_act": "gelu"}, "conv_kernel_size=3; only 0 is"),
    "maps of positions": ({"share_att_key": False}, "share_att_key=False; only True is supported"),
    "not said, which is maps": ({"share_att_key": GONE}, "share_att_key=False; only True is supported"),
    "another norm": ({"norm_rel_ebd": "layer_norm|x"}, r"norm_rel_ebd='layer_norm\|x'; only 'layer_norm' or 'none'"),
    "wide heads": ({"attention_head_size": 9}, "attention_head_size=9; only 7 is supported"),
    "no relative attention": ({"relative_attention": False}, "relative_attention=False; only True is supported"),
    "positions in the input": ({"position_biased_input": True}, "position_biased_input=True; only False is supported"),
    "segments": ({"type_vocab_size": 2}, "type_vocab_size=2; only 0 is supported"),
    "a fourth term": ({"pos_att_type": ["p2p"]}, "only c2p and p2c are supported, each once"),
    "version 1": ({"model_type": "deberta"}, "model_type='deberta'; DeBERTaV3 reads 'deberta-v2'"),
    "something new": ({"rotary": True}, "not handled: rotary=True"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, name):
    written(hf.DebertaV2Model, config(), tmp_path)
    values, message = REFUSED[name]
    change(tmp_path, **values)
    with pytest.raises(ValueError, match=message):
        DeBERTaV3.from_pretrained(tmp_path)


def test_what_makes_no_difference_is_passed_over(tmp_path):
    written(hf.DebertaV2Model, config(), tmp_path)
    change(tmp_path, attention_head_size=7, conv_kernel_size=0, conv_act="gelu", conv_groups=1, padding_idx=0)
    assert DeBERTaV3.from_pretrained(tmp_path).relative.max_distance == 11
    change(tmp_path, norm_rel_ebd=GONE)
    assert DeBERTaV3.from_pretrained(tmp_path).relative.norm is None  # not said, there is none, as in transformers


def test_what_the_layout_has_no_words_for(tmp_path):
    encoder = discriminator().encoder
    with pytest.raises(ValueError, match="the layout knows passes=2 and add_states=True only"):
        DeBERTaV3ForMaskedLM(encoder, add_states=False).to_transformers(tmp_path)
    encoder.relative = RelativeTable(4, D)
    with pytest.raises(ValueError, match="relative=RelativeTable: the layout knows a LogTable only"):
        encoder.to_transformers(tmp_path)
