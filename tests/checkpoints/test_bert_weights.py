"""BERT's released weights: written and read by transformers, under old names and new, with every head."""

import copy

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from toys import GONE, SIZES, change, reference, there_and_back, tokens, written

from helpers import assert_differs, assert_same
from papercode.attention.backends import auto, sdpa
from papercode.attention.transformer import attention
from papercode.attention.wrapping import wrapped
from papercode.encoders.bert import BERT
from papercode.encoders.bert_pretraining import BERTForMaskedLM, BERTForNextSentence, BERTForPreTraining
from papercode.encoders.bert_tasks import BERTForMultipleChoice, BERTForSentences, BERTForSpans, BERTForTokens

# ours, theirs, the logits of theirs
MODELS = {
    "BERTForPreTraining": (BERTForPreTraining, hf.BertForPreTraining, ("prediction_logits", "seq_relationship_logits")),
    "BERTForMaskedLM": (BERTForMaskedLM, hf.BertForMaskedLM, ("logits",)),
    "BERTForNextSentence": (BERTForNextSentence, hf.BertForNextSentencePrediction, ("logits",)),
    "BERTForSentences": (BERTForSentences, hf.BertForSequenceClassification, ("logits",)),
    "BERTForTokens": (BERTForTokens, hf.BertForTokenClassification, ("logits",)),
    "BERTForMultipleChoice": (BERTForMultipleChoice, hf.BertForMultipleChoice, ("logits",)),
    "BERTForSpans": (BERTForSpans, hf.BertForQuestionAnswering, ("start_logits", "end_logits")),
}
ATTENDS = {"attention": attention, "sdpa": sdpa, "auto": auto}


def config(architecture=None, **changes):
    made = copy.deepcopy(SIZES["bert"])
    made.num_labels = 2 if architecture is hf.BertForQuestionAnswering else 5
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def theirs_of(cls):
    return next(theirs for ours, theirs, _ in MODELS.values() if ours is cls)


def batch(name=""):
    """Tokens, segments, and padding at the end of one text; choices, if that is what the model reads."""
    x, segments = tokens(6, 11), torch.randint(3, (6, 11))
    keep = torch.arange(11) < torch.tensor([11, 7, 2, 5, 3, 11])[:, None]
    if name == "BERTForMultipleChoice":
        return [t.unflatten(0, (2, 3)) for t in (x, segments, keep)]
    return [t[:3] for t in (x, segments, keep)]


def real(found, keep):
    """Of what is said of tokens, that of those that are no padding."""
    return [x[keep] if x.shape[:2] == keep.shape and x.ndim > 1 and keep.shape[1] == 11 else x for x in found]


@pytest.mark.parametrize("attend", ATTENDS)
def test_the_encoder(parity, tmp_path, attend):
    theirs, (x, segments, keep) = written(hf.BertModel, config(), tmp_path), batch()
    ours = BERT.from_pretrained(tmp_path)
    assert not ours.training
    assert ours.words.weight.dtype == torch.float64
    names = ("last_hidden_state", "pooler_output")
    with torch.no_grad(), wrapped(ours, lambda _: ATTENDS[attend]):
        states = ours(x, segments, keep)
        found = [states[keep], ours.pool(states)]
        (wanted, pooled), label = reference(theirs, x, segments, keep, names), f"3 layers, padding, segments, {attend}"
        parity("BERT", "transformers.BertModel", label, found, [wanted[keep], pooled])
        plain = reference(theirs, x, torch.zeros_like(x), torch.ones_like(keep), names)
        parity("BERT", "transformers.BertModel", f"3 layers, {attend}", [ours(x), ours.pool(ours(x))], plain)
        assert_differs(ours(x, segments)[keep], wanted[keep])  # padding counts
        assert_differs(ours(x, None, keep)[keep], wanted[keep])  # segments count


@pytest.mark.parametrize("name", MODELS)
def test_every_head(parity, tmp_path, name):
    cls, architecture, names = MODELS[name]
    theirs, given = written(architecture, config(architecture), tmp_path), batch(name)
    ours = cls.from_pretrained(tmp_path)
    assert not ours.training
    wanted = real(reference(theirs, *given, names), given[2])
    with torch.no_grad():
        out = ours(*given)
        found = real(list(out) if isinstance(out, tuple) else [out], given[2])
        parity(name, f"transformers.{architecture.__name__}", "3 layers, padding, segments", found, wanted)
        without = ours(given[0], given[1])
        assert_differs(real([without[-1] if isinstance(without, tuple) else without], given[2])[0], wanted[-1])


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(tmp_path, name):
    cls, architecture, names = MODELS[name]
    theirs, given = written(architecture, config(architecture), tmp_path / "theirs"), batch(name)
    again = there_and_back(cls, architecture, tmp_path)
    for mine, other in zip(reference(again, *given, names), reference(theirs, *given, names), strict=True):
        assert_same(mine, other, 1e-12)


def rename(folder, *changes, add=None):
    """Rewrites a file of weights under other names."""
    tensors = load_file(folder / "model.safetensors")
    for old, new in changes:
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    tensors |= {
        name: (tensors[other] if isinstance(other, str) else other).clone() for name, other in (add or {}).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


OLD = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")]
TWICE = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "bert.embeddings.position_ids": torch.arange(31)[None],
}


@pytest.mark.parametrize("cls", [BERTForPreTraining, BERTForMaskedLM, BERTForNextSentence, BERT])
def test_the_old_names_of_the_first_released_files(tmp_path, cls):
    theirs, given = written(hf.BertForPreTraining, config(), tmp_path), batch()
    rename(tmp_path, *OLD, add=TWICE)
    assert "bert.encoder.layer.0.attention.output.LayerNorm.gamma" in load_file(tmp_path / "model.safetensors")
    ours = cls.from_pretrained(tmp_path)
    words, follows = reference(theirs, *given, MODELS["BERTForPreTraining"][2])
    with torch.no_grad():
        if cls is BERT:
            states = theirs.bert(given[0], token_type_ids=given[1], attention_mask=given[2].long()).last_hidden_state
            assert_same(ours(*given)[given[2]], states[given[2]])
        elif cls is BERTForPreTraining:
            assert_same(ours(*given)[0][given[2]], words[given[2]])
            assert_same(ours(*given)[1], follows)
        else:
            found, wanted = (ours(*given), follows) if cls is BERTForNextSentence else (ours(*given), words)
            assert_same(*(x[given[2]] if x.ndim == 3 else x for x in (found, wanted)))


@pytest.mark.parametrize("name", ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])
def test_a_second_copy_that_differs_is_refused(tmp_path, name):
    written(hf.BertForMaskedLM, config(), tmp_path)
    rename(tmp_path, add=TWICE)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[name] = tensors[name] + 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"has a {name} that differs from {TWICE[name]}; here they are one"):
        BERTForMaskedLM.from_pretrained(tmp_path)


def test_the_encoder_out_of_a_file_with_other_names_before_it(tmp_path):
    """A BertModel's own file has no `bert.` before its names; with it, and without, it is the same encoder."""
    theirs, given = written(hf.BertModel, config(), tmp_path), batch()
    first = BERT.from_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "pooler.dense.weight" in tensors
    save_file({f"bert.{name}": x for name, x in tensors.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    second = BERT.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    (wanted,) = reference(theirs, *given, ["pooler_output"])
    assert_same(second.pool(second(*given)).detach(), wanted)


@pytest.mark.parametrize("cls", [BERTForMaskedLM, BERTForTokens, BERTForSpans])
def test_a_file_without_pooler(tmp_path, cls):
    architecture = theirs_of(cls)
    theirs, given = written(architecture, config(architecture), tmp_path), batch()
    with pytest.raises(ValueError, match=r"nothing was loaded\. missing: pooler\.bias, pooler\.weight"):
        BERT.from_pretrained(tmp_path)
    encoder = cls.from_pretrained(tmp_path).encoder
    with torch.no_grad():
        states = theirs.bert(given[0], token_type_ids=given[1], attention_mask=given[2].long()).last_hidden_state
        assert_same(encoder(*given)[given[2]], states[given[2]])
    with pytest.raises(ValueError, match="made with pooler=False"):
        encoder.pool(states)
    encoder.to_transformers(tmp_path / "encoder")
    again = hf.BertModel.from_pretrained(tmp_path / "encoder", add_pooling_layer=False, dtype=torch.float64).eval()
    assert_same(reference(again, *given, ["last_hidden_state"])[0][given[2]], states[given[2]])


def test_a_pooler_that_is_not_needed_is_left_in_the_file(tmp_path):
    written(hf.BertForPreTraining, config(), tmp_path / "theirs")
    ours = BERTForMaskedLM.from_pretrained(tmp_path / "theirs")
    assert ours.encoder.pooler is None
    tagger = BERTForTokens(BERT.from_pretrained(tmp_path / "theirs"), 7)  # fine-tuning begins with all of the encoder
    tagger.to_transformers(tmp_path / "ours")
    again = BERTForTokens.from_pretrained(tmp_path / "ours")
    x = tokens()
    assert_same(again(x), tagger.eval()(x), 1e-12)


def test_a_head_that_the_file_does_not_have_is_missing(tmp_path):
    written(hf.BertForPreTraining, config(), tmp_path)
    with pytest.raises(ValueError, match=r"missing: classifier\.bias, classifier\.weight"):
        BERTForSentences.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing: span\.bias, span\.weight"):
        BERTForSpans.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [BERTForSentences, BERTForTokens])
def test_the_number_of_classes(tmp_path, cls):
    architecture = theirs_of(cls)
    written(architecture, config(architecture), tmp_path)
    assert cls.from_pretrained(tmp_path).classifier.out_features == 5
    change(tmp_path, id2label=GONE, num_labels=5)
    assert cls.from_pretrained(tmp_path).classifier.out_features == 5
    change(tmp_path, num_labels=GONE)
    with pytest.raises(ValueError, match=r"misshapen: classifier\.weight \(\(5, 20\) in the file, \(2, 20\) here\)"):
        cls.from_pretrained(tmp_path)
    written(architecture, config(num_labels=2), tmp_path / "two")  # for which transformers writes no labels
    assert cls.from_pretrained(tmp_path / "two").classifier.out_features == 2
    cls.from_pretrained(tmp_path / "two").to_transformers(tmp_path / "again")
    assert architecture.from_pretrained(tmp_path / "again").config.num_labels == 2


@pytest.mark.parametrize("cls", [BERTForSentences, BERTForTokens, BERTForMultipleChoice])
def test_dropout_before_the_classifier(tmp_path, cls):
    architecture = theirs_of(cls)
    written(architecture, config(hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2), tmp_path)
    model = cls.from_pretrained(tmp_path)
    assert (model.dropout.p, model.encoder.dropout.p, model.encoder.layers[0].attention.dropout) == (0.2, 0.2, 0.2)
    change(tmp_path, classifier_dropout=0.3)
    model = cls.from_pretrained(tmp_path)
    assert (model.dropout.p, model.encoder.dropout.p) == (0.3, 0.2)
    model.to_transformers(tmp_path / "again")
    written_again = architecture.from_pretrained(tmp_path / "again").config
    assert (written_again.classifier_dropout, written_again.hidden_dropout_prob) == (0.3, 0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'; only 'gelu' is supported"),
        ({"attention_probs_dropout_prob": 0.0}, "attention_probs_dropout_prob=0.0; only 0.1 is supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'; only 'absolute'"),
        ({"is_decoder": True}, "is_decoder=True; only False is supported"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings=False; only True is supported"),
        ({"sparsity": 3}, "attributes that are not handled: sparsity=3"),
        ({"model_type": "roberta"}, "model_type='roberta'; BERTForMaskedLM reads 'bert'"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_handled(tmp_path, changes, message):
    written(hf.BertForMaskedLM, config(), tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        BERTForMaskedLM.from_pretrained(tmp_path)


def test_the_configuration_of_the_released_multilingual_and_chinese_models(tmp_path):
    written(hf.BertForMaskedLM, config(), tmp_path)
    change(tmp_path, directionality="bidi", pooler_fc_size=768, pooler_num_attention_heads=12, pooler_num_fc_layers=3,
           pooler_size_per_head=128, pooler_type="first_token_transform")  # fmt: skip
    assert BERTForMaskedLM.from_pretrained(tmp_path).encoder.pooler is None


def test_defaults_that_the_first_files_do_not_write(tmp_path):
    written(hf.BertModel, config(max_position_embeddings=512, type_vocab_size=2), tmp_path)
    change(tmp_path, layer_norm_eps=GONE, type_vocab_size=GONE, max_position_embeddings=GONE, hidden_dropout_prob=GONE)
    model = BERT.from_pretrained(tmp_path)
    assert (model.norm.eps, model.layers[2].residuals[1].norm.eps, model.dropout.p) == (1e-12, 1e-12, 0.1)


def test_eps_is_read_and_written(tmp_path):
    written(hf.BertForMaskedLM, config(layer_norm_eps=1e-3), tmp_path)
    model = BERTForMaskedLM.from_pretrained(tmp_path)
    assert {model.encoder.norm.eps, model.encoder.layers[1].residuals[0].norm.eps, model.mlm.norm.eps} == {1e-3}
    model.to_transformers(tmp_path / "again")
    assert hf.BertConfig.from_pretrained(tmp_path / "again").layer_norm_eps == 1e-3


def test_the_base_model_in_full(parity, tmp_path):
    """109,482,240 numbers in float32, as bert-base-uncased has them, in a file of transformers."""
    with torch.device("meta"):
        theirs = hf.BertModel(hf.BertConfig())
    theirs = theirs.to_empty(device="cpu").eval()
    with torch.no_grad():
        for number, parameter in enumerate(theirs.parameters()):
            block = torch.randn(min(parameter.numel(), 9973), generator=torch.Generator().manual_seed(number))
            parameter.view(-1).copy_(block.mul_(0.05).repeat(parameter.numel() // len(block) + 1)[: parameter.numel()])
            parameter.add_(1.0 if "LayerNorm.weight" in list(dict(theirs.named_parameters()))[number] else 0.0)
        theirs.embeddings.position_ids.copy_(torch.arange(512)[None])
        theirs.embeddings.token_type_ids.zero_()
    theirs.save_pretrained(tmp_path)
    ours = BERT.from_pretrained(tmp_path)
    assert sum(p.numel() for p in ours.parameters()) == 109_482_240
    x, keep = torch.randint(30_522, (2, 13)), torch.arange(13) < torch.tensor([13, 5])[:, None]
    with torch.no_grad():
        (wanted,) = reference(theirs, x, torch.zeros_like(x), keep, ["last_hidden_state"])
        found = ours(x, keep=keep)
        parity("BERT", "transformers.BertModel", "base, in full, float32", found[keep], wanted[keep], tolerance=1e-4)
        assert_differs(ours(x)[keep], wanted[keep])


def counted(cls, architecture, sizes, **given):
    """The parameters of a model on the meta device, and of the one of transformers."""
    with torch.device("meta"):
        model = cls(BERT(**given)) if cls is not BERT else BERT(**given)
        theirs = architecture(hf.BertConfig(**sizes))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    return [sum(p.numel() for p in m.parameters()) for m in (model, theirs)]


@pytest.mark.parametrize(
    ("cls", "architecture", "large", "number"),
    [
        (BERT, hf.BertModel, False, 109_482_240),
        (BERT, hf.BertModel, True, 335_141_888),
        (BERTForPreTraining, hf.BertForPreTraining, False, 110_106_428),
        (BERTForPreTraining, hf.BertForPreTraining, True, 336_226_108),
    ],
)
def test_counts(cls, architecture, large, number):
    ours = {"d_model": 1024, "n_heads": 16, "d_ff": 4096, "n_layers": 24} if large else {}
    theirs = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24}
    assert counted(cls, architecture, theirs if large else {}, **ours) == [number, number]
    one_layer_more = dict(ours, n_layers=25 if large else 13)
    assert counted(cls, architecture, theirs if large else {}, **one_layer_more)[0] != number
