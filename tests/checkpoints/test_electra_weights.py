"""ELECTRA's released weights: written and read by transformers, generator and discriminator, counted in full."""

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from toys import GONE, change, reference, there_and_back, tokens, written

from helpers import assert_differs, assert_same
from papercode.attention.backends import sdpa
from papercode.attention.transformer import attention
from papercode.attention.wrapping import wrapped
from papercode.encoders.electra import ELECTRA, ELECTRAForSentences, ELECTRAForSpans, ELECTRAForTokens
from papercode.encoders.electra_pretraining import ELECTRADiscriminator, ELECTRAGenerator, ReplacedTokenDetection

# ours, theirs, the logits of theirs
MODELS = {
    "ELECTRADiscriminator": (ELECTRADiscriminator, hf.ElectraForPreTraining, ("logits",)),
    "ELECTRAGenerator": (ELECTRAGenerator, hf.ElectraForMaskedLM, ("logits",)),
    "ELECTRAForSentences": (ELECTRAForSentences, hf.ElectraForSequenceClassification, ("logits",)),
    "ELECTRAForTokens": (ELECTRAForTokens, hf.ElectraForTokenClassification, ("logits",)),
    "ELECTRAForSpans": (ELECTRAForSpans, hf.ElectraForQuestionAnswering, ("start_logits", "end_logits")),
}
WIDTHS = {"e < d": 12, "e = d": 20, "e > d": 28}


def config(architecture=None, **changes):
    made = hf.ElectraConfig(vocab_size=97, embedding_size=12, hidden_size=20, num_hidden_layers=3,
                            num_attention_heads=5, intermediate_size=28, max_position_embeddings=31,
                            type_vocab_size=3)  # fmt: skip
    made.num_labels = 2 if architecture is hf.ElectraForQuestionAnswering else 5
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def batch():
    keep = torch.arange(11) < torch.tensor([11, 7, 2])[:, None]
    return tokens(3, 11), torch.randint(3, (3, 11)), keep


def real(found, keep):
    """Of what is said of tokens, that of those that are no padding."""
    return [x[keep] if x.shape[:2] == keep.shape else x for x in found]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("attend", [attention, sdpa])
def test_the_encoder(parity, tmp_path, width, attend):
    theirs, (x, segments, keep) = written(hf.ElectraModel, config(embedding_size=WIDTHS[width]), tmp_path), batch()
    ours = ELECTRA.from_pretrained(tmp_path)
    assert not ours.training
    assert (ours.d_embedding, ours.d_model, ours.project is None) == (WIDTHS[width], 20, width == "e = d")
    with torch.no_grad(), wrapped(ours, lambda _: attend):
        (wanted,) = reference(theirs, x, segments, keep, ["last_hidden_state"])
        label = f"3 layers, {width}, padding, segments, {attend.__name__}"
        parity("ELECTRA", "transformers.ElectraModel", label, ours(x, segments, keep)[keep], wanted[keep])
        assert_differs(ours(x, segments)[keep], wanted[keep])  # padding counts
        assert_differs(ours(x, None, keep)[keep], wanted[keep])  # segments count


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", MODELS)
def test_every_head(parity, tmp_path, name, width):
    cls, architecture, names = MODELS[name]
    theirs, given = written(architecture, config(architecture, embedding_size=WIDTHS[width]), tmp_path), batch()
    ours = cls.from_pretrained(tmp_path)
    assert not ours.training
    wanted = real(reference(theirs, *given, names), given[2])
    with torch.no_grad():
        out = ours(*given)
        found = real(list(out) if isinstance(out, tuple) else [out], given[2])
        label = f"3 layers, {width}, padding, segments"
        parity(name, f"transformers.{architecture.__name__}", label, found, wanted)
        without = ours(given[0], given[1])
        assert_differs(real([without[-1] if isinstance(without, tuple) else without], given[2])[0], wanted[-1])


def test_the_loss_of_the_discriminator_and_its_gradients(parity, tmp_path):
    theirs, (x, segments, keep) = written(hf.ElectraForPreTraining, config(), tmp_path), batch()
    x = x.clamp(min=1)  # transformers gives the embedding of token 0, which pads, no gradient
    ours, replaced = ELECTRADiscriminator.from_pretrained(tmp_path), torch.rand(3, 11) < 0.3
    mine = ours.loss(x, replaced, segments, keep)
    other = theirs(x, token_type_ids=segments, attention_mask=keep.long(), labels=replaced.long()).loss
    mine.backward()
    other.backward()
    pairs = [
        (mine, other),
        (ours.encoder.words.weight.grad, theirs.electra.embeddings.word_embeddings.weight.grad),
        (ours.encoder.project.weight.grad, theirs.electra.embeddings_project.weight.grad),
        (ours.verdict.weight.grad, theirs.discriminator_predictions.dense_prediction.weight.grad),
    ]
    name, found, wanted = "ELECTRADiscriminator", [a for a, _ in pairs], [b.double() for _, b in pairs]
    # theirs makes float32 of the labels, and so of the loss
    parity(name, "transformers.ElectraForPreTraining", "loss and gradients, padding", found, wanted, tolerance=1e-6)
    assert (ours.loss(x, ~replaced, segments, keep) - other).abs() > 1e-3
    assert (ours.loss(x, replaced, segments) - other).abs() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(tmp_path, name):
    cls, architecture, names = MODELS[name]
    theirs, given = written(architecture, config(architecture), tmp_path / "theirs"), batch()
    again = there_and_back(cls, architecture, tmp_path)
    for mine, other in zip(reference(again, *given, names), reference(theirs, *given, names), strict=True):
        assert_same(mine, other, 1e-12)
    assert (again.config.embedding_size, again.config.hidden_size, again.config.model_type) == (12, 20, "electra")


def test_the_encoder_out_of_both(tmp_path):
    """Fine-tuning begins with the discriminator's encoder; the heads of the file stay there."""
    theirs, given = written(hf.ElectraForPreTraining, config(), tmp_path), batch()
    encoder = ELECTRA.from_pretrained(tmp_path)
    with torch.no_grad():
        states = theirs.electra(given[0], token_type_ids=given[1], attention_mask=given[2].long()).last_hidden_state
        assert_same(encoder(*given)[given[2]], states[given[2]])
    encoder.to_transformers(tmp_path / "ours")
    again = hf.ElectraModel.from_pretrained(tmp_path / "ours", dtype=torch.float64).eval()
    assert_same(reference(again, *given, ["last_hidden_state"])[0], states, 1e-12)
    with pytest.raises(ValueError, match=r"missing: hidden\.bias, hidden\.weight, output\.bias, output\.weight"):
        ELECTRAForSentences.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing: mlm\.bias"):
        ELECTRAGenerator.from_pretrained(tmp_path)


def test_training_goes_on_with_two_folders(tmp_path):
    """A generator is saved with the embeddings that it shares."""
    written(hf.ElectraForMaskedLM, config(hidden_size=10), tmp_path / "generator")
    written(hf.ElectraForPreTraining, config(), tmp_path / "discriminator")
    generator = ELECTRAGenerator.from_pretrained(tmp_path / "generator")
    model = ReplacedTokenDetection(generator, ELECTRADiscriminator.from_pretrained(tmp_path / "discriminator"))
    model.generator.to_transformers(tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    table = "electra.embeddings.word_embeddings.weight"
    assert torch.equal(again[table], load_file(tmp_path / "discriminator" / "model.safetensors")[table])


def test_the_last_map_is_the_table_of_words(tmp_path):
    theirs, given = written(hf.ElectraForMaskedLM, config(), tmp_path), batch()
    tensors = load_file(tmp_path / "model.safetensors")
    assert "generator_lm_head.weight" not in tensors
    twice = {
        "generator_lm_head.weight": tensors["electra.embeddings.word_embeddings.weight"].clone(),
        "electra.embeddings.position_ids": torch.arange(31)[None],
    }
    save_file(tensors | twice, tmp_path / "model.safetensors", {"format": "pt"})
    ours = ELECTRAGenerator.from_pretrained(tmp_path)
    (wanted,) = reference(theirs, *given, ["logits"])
    assert_same(ours(*given)[given[2]].detach(), wanted[given[2]])
    other = {"generator_lm_head.weight": twice["generator_lm_head.weight"] + 1}
    save_file(tensors | other, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"has a generator_lm_head\.weight that differs from .*; here they are one"):
        ELECTRAGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [ELECTRAForSentences, ELECTRAForTokens])
def test_classes_and_dropout(tmp_path, cls):
    architecture = next(theirs for ours, theirs, _ in MODELS.values() if ours is cls)
    written(architecture, config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2), tmp_path)
    model = cls.from_pretrained(tmp_path)
    layer = {ELECTRAForSentences: "output", ELECTRAForTokens: "classifier"}[cls]
    assert (model.dropout.p, model.encoder.dropout.p, getattr(model, layer).out_features) == (0.2, 0.2, 5)
    change(tmp_path, classifier_dropout=0.3)
    model = cls.from_pretrained(tmp_path)
    assert (model.dropout.p, model.encoder.dropout.p) == (0.3, 0.2)
    model.to_transformers(tmp_path / "again")
    settings = architecture.from_pretrained(tmp_path / "again").config
    assert (settings.classifier_dropout, settings.num_labels) == (0.3, 5)
    change(tmp_path, id2label=GONE, num_labels=5)
    assert getattr(cls.from_pretrained(tmp_path), layer).out_features == 5
    change(tmp_path, num_labels=GONE)
    with pytest.raises(ValueError, match=r"misshapen: .*\(5, 20\) in the file, \(2, 20\) here"):
        cls.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act='relu'; only 'gelu' is supported"),
        ({"attention_probs_dropout_prob": 0.0}, "attention_probs_dropout_prob=0.0; only 0.1 is supported"),
        ({"is_decoder": True}, "is_decoder=True; only False is supported"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False; only True is supported"),
        ({"sparsity": 3}, "attributes that are not handled: sparsity=3"),
        ({"model_type": "bert"}, "model_type='bert'; ELECTRAGenerator reads 'electra'"),
        ({"embedding_size": 20}, r"misshapen: encoder\.words\.weight \(\(97, 12\) in the file, \(97, 20\) here\)"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_handled(tmp_path, changes, message):
    written(hf.ElectraForMaskedLM, config(), tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        ELECTRAGenerator.from_pretrained(tmp_path)


def test_defaults_of_the_configuration(tmp_path):
    written(hf.ElectraModel, config(embedding_size=128, layer_norm_eps=1e-12), tmp_path)
    change(tmp_path, embedding_size=GONE, layer_norm_eps=GONE)
    model = ELECTRA.from_pretrained(tmp_path)
    assert (model.d_embedding, model.norm.eps) == (128, 1e-12)


SIZES = {
    "small": ({}, {}, 13_483_008),
    "base": (
        {"d_embedding": 768, "d_model": 768, "n_heads": 12, "d_ff": 3072},
        {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
        108_891_648,
    ),
    "large": (
        {"d_embedding": 1024, "d_model": 1024, "n_heads": 16, "d_ff": 4096, "n_layers": 24},
        {"embedding_size": 1024, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096,
         "num_hidden_layers": 24},
        334_092_288,
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_counts(size):
    sizes, theirs, number = SIZES[size]
    with torch.device("meta"):
        model, other = ELECTRA(**sizes), hf.ElectraModel(hf.ElectraConfig(**theirs))
        longer = ELECTRA(**sizes, n_positions=513)
        heads = ELECTRADiscriminator(model), hf.ElectraForPreTraining(hf.ElectraConfig(**theirs))
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, other, longer, *heads)]
    assert counts[:2] == [number, number]
    assert counts[2] != number
    d = model.d_model
    assert counts[3] == counts[4] == number + d * d + d + d + 1
