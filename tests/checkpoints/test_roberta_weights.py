"""RoBERTa's released weights: written and read by transformers, with every head, and counted in full."""

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from toys import GONE, change, reference, there_and_back, tokens, written

from helpers import assert_differs, assert_same
from papercode.attention.backends import sdpa
from papercode.attention.transformer import attention
from papercode.attention.wrapping import wrapped
from papercode.encoders.bert import BERT
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.roberta import (
    RoBERTa,
    RoBERTaForMaskedLM,
    RoBERTaForMultipleChoice,
    RoBERTaForSentences,
    RoBERTaForSpans,
    RoBERTaForTokens,
)

# ours, theirs, the logits of theirs
MODELS = {
    "RoBERTaForMaskedLM": (RoBERTaForMaskedLM, hf.RobertaForMaskedLM, ("logits",)),
    "RoBERTaForSentences": (RoBERTaForSentences, hf.RobertaForSequenceClassification, ("logits",)),
    "RoBERTaForTokens": (RoBERTaForTokens, hf.RobertaForTokenClassification, ("logits",)),
    "RoBERTaForMultipleChoice": (RoBERTaForMultipleChoice, hf.RobertaForMultipleChoice, ("logits",)),
    "RoBERTaForSpans": (RoBERTaForSpans, hf.RobertaForQuestionAnswering, ("start_logits", "end_logits")),
}
PAD = 3


def config(architecture=None, **changes):
    made = hf.RobertaConfig(vocab_size=97, hidden_size=20, num_hidden_layers=3, num_attention_heads=5,
                            intermediate_size=28, max_position_embeddings=31, type_vocab_size=2, pad_token_id=PAD,
                            layer_norm_eps=1e-5)  # fmt: skip
    made.num_labels = 2 if architecture is hf.RobertaForQuestionAnswering else 5
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def batch(name=""):
    """Tokens, segments, and padding on the right, on the left and nowhere; choices, if the model reads them."""
    x, segments = tokens(6, 11), torch.randint(2, (6, 11))
    keep = torch.arange(11) < torch.tensor([11, 7, 2, 5, 3, 11])[:, None]
    keep[2] = keep[2].flip(0)
    x = torch.where(keep, torch.where(x == PAD, 5, x), PAD)
    if name == "RoBERTaForMultipleChoice":
        return [t.unflatten(0, (2, 3)) for t in (x, segments, keep)]
    return [t[:3] for t in (x, segments, keep)]


def real(found, keep):
    """Of what is said of tokens, that of those that are no padding."""
    return [x[keep] if x.shape[:2] == keep.shape and x.ndim > 1 and keep.shape[1] == 11 else x for x in found]


@pytest.mark.parametrize("attend", [attention, sdpa])
def test_the_encoder(parity, tmp_path, attend):
    theirs, (x, segments, keep) = written(hf.RobertaModel, config(), tmp_path), batch()
    ours = RoBERTa.from_pretrained(tmp_path)
    assert not ours.training
    assert (ours.n_positions, ours.pad, ours.words.weight.dtype) == (27, PAD, torch.float64)
    names = ("last_hidden_state", "pooler_output")
    with torch.no_grad(), wrapped(ours, lambda _: attend):
        states = ours(x, segments, keep)
        wanted, pooled = reference(theirs, x, segments, keep, names)
        label = f"3 layers, padding on either side, segments, {attend.__name__}"
        found = [states[keep], ours.pool(states[:2])]
        parity("RoBERTa", "transformers.RobertaModel", label, found, [wanted[keep], pooled[:2]])
        assert_differs(ours(x, segments)[keep], wanted[keep])  # padding counts
        assert_differs(ours(x, None, keep)[keep], wanted[keep])  # segments count
        assert_differs(BERT.forward(shifted(ours), x, segments, keep)[keep], wanted[keep])  # positions count


def shifted(model):
    """The same, with positions that begin at row 0, as BERT's."""
    model.places = lambda x: torch.arange(x.shape[1]).expand_as(x)
    return model


def test_padding_may_stand_inside(parity, tmp_path):
    """A token of padding has its own position wherever it stands, and those behind it are not moved."""
    theirs, (x, segments, _) = written(hf.RobertaModel, config(), tmp_path), batch()
    x[0, 4] = PAD
    ours, all_of_it = RoBERTa.from_pretrained(tmp_path), torch.ones_like(x, dtype=torch.bool)
    (wanted,) = reference(theirs, x, segments, all_of_it, ["last_hidden_state"])
    with torch.no_grad():
        parity("RoBERTa", "transformers.RobertaModel", "padding that is looked at", ours(x, segments), wanted)


@pytest.mark.parametrize("name", MODELS)
def test_every_head(parity, tmp_path, name):
    cls, architecture, names = MODELS[name]
    theirs, given = written(architecture, config(architecture), tmp_path), batch(name)
    ours = cls.from_pretrained(tmp_path)
    assert not ours.training
    rows = given[2][..., 0] if name in ("RoBERTaForSentences", "RoBERTaForMultipleChoice") else given[2]
    wanted = [x[rows] if x.shape[: rows.ndim] == rows.shape else x for x in reference(theirs, *given, names)]
    with torch.no_grad():
        out = ours(*given)
        found = [x[rows] for x in (out if isinstance(out, tuple) else [out])]
        parity(name, f"transformers.{architecture.__name__}", "3 layers, padding, segments", found, wanted)
        without = ours(given[0], given[1])
        assert_differs((without[-1] if isinstance(without, tuple) else without)[rows], wanted[-1])


def test_the_loss_and_its_gradients(parity, tmp_path):
    theirs, (x, segments, keep) = written(hf.RobertaForMaskedLM, config(), tmp_path), batch()
    ours = RoBERTaForMaskedLM.from_pretrained(tmp_path)
    wanted = torch.where(keep & (torch.rand(x.shape) < 0.5), tokens(3, 11), IGNORED)
    mine = ours.loss(x, wanted, segments, keep)
    other = theirs(x, token_type_ids=segments, attention_mask=keep.long(), labels=wanted).loss
    mine.backward()
    other.backward()
    embeddings = theirs.roberta.embeddings
    pairs = [
        (mine, other),
        (ours.encoder.words.weight.grad[PAD + 1 :], embeddings.word_embeddings.weight.grad[PAD + 1 :]),
        (ours.encoder.positions.weight.grad[PAD + 1 :], embeddings.position_embeddings.weight.grad[PAD + 1 :]),
        (ours.mlm.bias.grad, theirs.lm_head.bias.grad),
    ]
    name = "loss and gradients (theirs gives padding none)"
    parity("RoBERTaForMaskedLM", "transformers.RobertaForMaskedLM", name, *zip(*pairs, strict=True))
    assert (ours.loss(x, wanted, segments) - other).abs() > 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(tmp_path, name):
    cls, architecture, names = MODELS[name]
    theirs, given = written(architecture, config(architecture), tmp_path / "theirs"), batch(name)
    again = there_and_back(cls, architecture, tmp_path)
    for mine, other in zip(reference(again, *given, names), reference(theirs, *given, names), strict=True):
        assert_same(mine, other, 1e-12)
    settings = again.config
    assert (settings.pad_token_id, settings.max_position_embeddings, settings.layer_norm_eps) == (PAD, 31, 1e-5)
    assert settings.model_type == "roberta"


def test_the_encoder_alone_there_and_back(tmp_path):
    theirs, given = written(hf.RobertaModel, config(), tmp_path / "theirs"), batch()
    RoBERTa.from_pretrained(tmp_path / "theirs").to_transformers(tmp_path / "ours")
    again = hf.RobertaModel.from_pretrained(tmp_path / "ours", dtype=torch.float64).eval()
    for mine, other in zip(*(reference(m, *given, ["last_hidden_state", "pooler_output"]) for m in (again, theirs))):
        assert_same(mine, other, 1e-12)


def test_the_encoder_out_of_a_file_with_a_head(tmp_path):
    """A released file holds encoder and head, without the pooler: `.encoder` of what names words is the encoder."""
    theirs, given = written(hf.RobertaForMaskedLM, config(), tmp_path), batch()
    with pytest.raises(ValueError, match=r"nothing was loaded\. missing: pooler\.bias, pooler\.weight"):
        RoBERTa.from_pretrained(tmp_path)
    encoder = RoBERTaForMaskedLM.from_pretrained(tmp_path).encoder
    with torch.no_grad():
        x, segments, keep = given
        states = theirs.roberta(x, token_type_ids=segments, attention_mask=keep.long()).last_hidden_state
        assert_same(encoder(*given)[keep], states[keep])


def test_the_last_map_is_the_table_of_words(tmp_path):
    theirs, given = written(hf.RobertaForMaskedLM, config(), tmp_path), batch()
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.decoder.weight" not in tensors
    twice = {
        "lm_head.decoder.weight": tensors["roberta.embeddings.word_embeddings.weight"].clone(),
        "lm_head.decoder.bias": tensors["lm_head.bias"].clone(),
        "roberta.embeddings.position_ids": torch.arange(31)[None],
    }
    save_file(tensors | twice, tmp_path / "model.safetensors", {"format": "pt"})
    ours = RoBERTaForMaskedLM.from_pretrained(tmp_path)
    (wanted,) = reference(theirs, *given, ["logits"])
    assert_same(ours(*given)[given[2]].detach(), wanted[given[2]])
    for name in ("lm_head.decoder.weight", "lm_head.decoder.bias"):
        save_file(tensors | twice | {name: twice[name] + 1}, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=rf"has a {name} that differs from .*; here they are one"):
            RoBERTaForMaskedLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [RoBERTaForSentences, RoBERTaForTokens])
def test_the_number_of_classes(tmp_path, cls):
    architecture = next(theirs for ours, theirs, _ in MODELS.values() if ours is cls)
    written(architecture, config(), tmp_path)
    layer = {RoBERTaForSentences: "output", RoBERTaForTokens: "classifier"}[cls]
    assert getattr(cls.from_pretrained(tmp_path), layer).out_features == 5
    cls.from_pretrained(tmp_path).to_transformers(tmp_path / "again")
    assert architecture.from_pretrained(tmp_path / "again").config.num_labels == 5
    change(tmp_path, id2label=GONE, num_labels=5)
    assert getattr(cls.from_pretrained(tmp_path), layer).out_features == 5
    change(tmp_path, num_labels=GONE)
    with pytest.raises(ValueError, match=r"misshapen: .*\(5, 20\) in the file, \(2, 20\) here"):
        cls.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [RoBERTaForSentences, RoBERTaForTokens, RoBERTaForMultipleChoice])
def test_dropout_before_the_classifier(tmp_path, cls):
    architecture = next(theirs for ours, theirs, _ in MODELS.values() if ours is cls)
    written(architecture, config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2), tmp_path)
    model = cls.from_pretrained(tmp_path)
    assert (model.dropout.p, model.encoder.dropout.p) == (0.2, 0.2)
    change(tmp_path, classifier_dropout=0.3)
    model = cls.from_pretrained(tmp_path)
    assert (model.dropout.p, model.encoder.dropout.p) == (0.3, 0.2)
    model.to_transformers(tmp_path / "again")
    assert architecture.from_pretrained(tmp_path / "again").config.classifier_dropout == 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'; only 'gelu' is supported"),
        ({"attention_probs_dropout_prob": 0.0}, "attention_probs_dropout_prob=0.0; only 0.1 is supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'; only 'absolute'"),
        ({"is_decoder": True}, "is_decoder=True; only False is supported"),
        ({"add_cross_attention": True}, "add_cross_attention=True; only False is supported"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False; only True is supported"),
        ({"sparsity": 3}, "attributes that are not handled: sparsity=3"),
        ({"model_type": "bert"}, "model_type='bert'; RoBERTaForMaskedLM reads 'roberta'"),
        ({"model_type": "xlm-roberta"}, "model_type='xlm-roberta'; RoBERTaForMaskedLM reads 'roberta'"),
        ({"pad_token_id": None}, "pad_token_id=None and max_position_embeddings=31: positions are the rows after"),
        ({"pad_token_id": 30}, "pad_token_id=30 and max_position_embeddings=31"),
        ({"pad_token_id": 4, "max_position_embeddings": 32}, r"misshapen: encoder\.positions\.weight"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_handled(tmp_path, changes, message):
    written(hf.RobertaForMaskedLM, config(), tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        RoBERTaForMaskedLM.from_pretrained(tmp_path)


def test_defaults_of_the_configuration(tmp_path):
    """What a file leaves out is what transformers takes it for."""
    written(hf.RobertaModel, config(pad_token_id=1, max_position_embeddings=512, layer_norm_eps=1e-12), tmp_path)
    change(tmp_path, layer_norm_eps=GONE, type_vocab_size=GONE, max_position_embeddings=GONE, pad_token_id=GONE)
    model = RoBERTa.from_pretrained(tmp_path)
    assert (model.norm.eps, model.layers[2].residuals[1].norm.eps, model.pad, model.n_positions) == (1e-12,) * 2 + (
        1,
        510,
    )


@pytest.mark.parametrize(("large", "number"), [(False, 124_645_632), (True, 355_359_744)])
def test_counts(large, number):
    sizes = {"d_model": 1024, "n_heads": 16, "d_ff": 4096, "n_layers": 24} if large else {}
    theirs = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24}
    with torch.device("meta"):
        model, one_token_more = RoBERTa(**sizes), RoBERTa(50_266, **sizes)
        other = hf.RobertaModel(
            hf.RobertaConfig(max_position_embeddings=514, type_vocab_size=1, **theirs if large else {})
        )
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, other, one_token_more)]
    assert counts[:2] == [number, number]
    assert counts[2] != number


def test_a_file_with_head_and_pooler(tmp_path):
    """As roberta-base is released: each model takes its part, and leaves the rest."""
    theirs, given = written(hf.RobertaForMaskedLM, config(), tmp_path), batch()
    tensors, pooler = load_file(tmp_path / "model.safetensors"), torch.randn(20, 20, dtype=torch.float64)
    more = {"roberta.pooler.dense.weight": pooler, "roberta.pooler.dense.bias": pooler[0].clone()}
    save_file(tensors | more, tmp_path / "model.safetensors", {"format": "pt"})
    words, encoder = RoBERTaForMaskedLM.from_pretrained(tmp_path), RoBERTa.from_pretrained(tmp_path)
    (wanted,) = reference(theirs, *given, ["logits"])
    assert_same(words(*given)[given[2]].detach(), wanted[given[2]])
    assert torch.equal(encoder.pooler.weight, pooler)
    assert_same(encoder(*given), words.encoder(*given), 0)
    choice = RoBERTaForMultipleChoice(encoder)
    with pytest.raises(ValueError, match=r"missing: classifier\.bias, classifier\.weight"):
        RoBERTaForMultipleChoice.from_pretrained(tmp_path)
    choice.to_transformers(tmp_path / "choice")
    assert RoBERTaForMultipleChoice.from_pretrained(tmp_path / "choice").encoder.pooler is not None
