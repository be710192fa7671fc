"""DeBERTa's released weights [@he2021deberta], as the transformers library stores them.

Queries, keys and values are one matrix there, in which head after head has its three blocks. Transformers has no
enhanced mask decoder, and passes over its table of positions, which the released files hold; here it is read.
"""

from functools import partial
from typing import Any

from papercode.checkpoints.bert import encoder_rules
from papercode.checkpoints.config import Config
from papercode.checkpoints.heads import HeadByHead, HeadLayout
from papercode.checkpoints.labels import labels, n_classes
from papercode.checkpoints.layout import Architecture, Rule
from papercode.encoders.deberta import DeBERTa, DeBERTaForSentences
from papercode.encoders.deberta_attention import DisentangledAttention, RelativeTable
from papercode.encoders.deberta_pretraining import DeBERTaForMaskedLM

_ANOTHER = ("attention.q.", "attention.k.", "attention.v.", "positions", "segments", "pooler")  # than BERT's, or none
SHARED = (
    *(rule for rule in encoder_rules("deberta") if not any(name in rule.ours for name in _ANOTHER)),
    Rule("deberta.encoder.rel_embeddings.weight", "encoder.relative.vectors.weight"),
    Rule("deberta.embeddings.position_embeddings.weight", "decoder.positions.weight"),
    *(Rule(f"lm_predictions.lm_head.dense.{kind}", f"mlm.transform.{kind}") for kind in ("weight", "bias")),
    Rule("lm_predictions.lm_head.LayerNorm.weight", "mlm.norm.gain"),
    Rule("lm_predictions.lm_head.LayerNorm.bias", "mlm.norm.bias"),
    Rule("lm_predictions.lm_head.bias", "mlm.bias"),
    *(Rule(f"pooler.dense.{kind}", f"pooler.{kind}") for kind in ("weight", "bias")),
    *(Rule(f"classifier.{kind}", f"classifier.{kind}") for kind in ("weight", "bias")),
)  # fmt: skip
"""For all of the family, but for what goes into the scores."""

_SELF, _OURS = "deberta.encoder.layer.*.attention.self.", "encoder.layers.*."
RULES = (
    *SHARED,
    HeadByHead(_SELF + "in_proj.weight", tuple(f"{_OURS}attention.{name}.weight" for name in "qkv")),
    *(Rule(f"{_SELF}{name}_bias", f"{_OURS}attention.{name}.bias") for name in "qv"),
    Rule(_SELF + "pos_proj.weight", _OURS + "attention.position_k.weight"),
    *(Rule(f"{_SELF}pos_q_proj.{kind}", f"{_OURS}attention.position_q.{kind}") for kind in ("weight", "bias")),
)
ALIASES = {  # of transformers' older head, and of the first files
    r"^cls\.predictions\.transform\.(dense|LayerNorm)": r"lm_predictions.lm_head.\1",
    r"^cls\.predictions\.bias$": "lm_predictions.lm_head.bias",
    r"^bert\.": "deberta.",
}
TIED = {
    "cls.predictions.decoder.weight": "deberta.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "lm_predictions.lm_head.bias",
}


def sizes(config: Config) -> dict[str, Any]:
    """What all of the family are made with.

    Raises:
        ValueError: If the file is of a model with positions in its input, or without relative ones.
    """
    dropout = config.take("hidden_dropout_prob", 0.1)
    d_model = config.take("hidden_size")
    for name, default, wanted in (("relative_attention", False, True), ("position_biased_input", True, False)):
        if (found := config.take(name, default)) is not wanted:
            raise ValueError(f"{config.source} has {name}={found!r}; only {wanted} is supported")
    config.expect(hidden_act="gelu", attention_probs_dropout_prob=dropout, type_vocab_size=0, talking_head=False)
    config.expect(embedding_size=d_model, pooler_hidden_size=d_model, pooler_hidden_act="gelu", pooler_dropout=0)
    config.ignore("padding_idx", "legacy", "num_labels", "cls_dropout")
    return {
        "n_tokens": config.take("vocab_size"),
        "d_model": d_model,
        "n_heads": config.take("num_attention_heads"),
        "d_ff": config.take("intermediate_size"),
        "n_layers": config.take("num_hidden_layers"),
        "dropout": dropout,
        "eps": config.take("layer_norm_eps", 1e-7),
    }


def terms(config: Config) -> set[str]:
    """Of the scores, beside content to content.

    Raises:
        ValueError: If there are others than c2p and p2c, or one twice.
    """
    found = config.take("pos_att_type", None) or []
    names = [name.strip() for name in found.lower().split("|")] if isinstance(found, str) else list(found)
    if len(set(names)) < len(names) or not {"c2p", "p2c"} >= set(names):
        raise ValueError(f"{config.source} has pos_att_type={found!r}; only c2p and p2c are supported, each once")
    return set(names)


def reach(config: Config) -> int:
    """max_relative_positions, or where that is not positive, max_position_embeddings."""
    found, longest = config.take("max_relative_positions", -1), config.take("max_position_embeddings", 512)
    return found if found > 0 else longest


def arguments(config: Config) -> dict[str, Any]:
    """What DeBERTa is made with."""
    found = terms(config)
    make = partial(DisentangledAttention, c2p="c2p" in found, p2c="p2c" in found, same_distance=True)
    return {**sizes(config), "k": reach(config), "make_attention": make}


def shared_configuration(model: Any) -> dict[str, Any]:
    """The inverse of `sizes`, and what belongs to heads."""
    encoder: DeBERTa = getattr(model, "encoder", model)
    layer: Any = encoder.layers[0]
    values = {
        "vocab_size": encoder.words.num_embeddings,
        "hidden_size": encoder.words.embedding_dim,
        "num_attention_heads": layer.attention.q.out_features // layer.attention.d_k,
        "intermediate_size": layer.feed_forward.expand.out_features,
        "num_hidden_layers": len(encoder.layers),
        "hidden_dropout_prob": encoder.dropout.p,
        "attention_probs_dropout_prob": layer.attention.dropout,
        "layer_norm_eps": encoder.norm.eps,
        "hidden_act": "gelu",
        "relative_attention": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "legacy": False,
        "pos_att_type": [name for name in ("c2p", "p2c") if getattr(layer.attention, name)],
        "max_position_embeddings": model.decoder.positions.num_embeddings if hasattr(model, "decoder") else 512,
    }
    if hasattr(model, "classifier"):
        values |= labels(model.classifier.out_features)
        values["cls_dropout"] = model.dropout.p
    return values


def configuration(model: Any) -> dict[str, Any]:
    """The inverse of `arguments`.

    Raises:
        ValueError: If the layout has no words for the model: p2c as in the paper, another decoder, another table.
    """
    encoder: DeBERTa = getattr(model, "encoder", model)
    attention: Any = encoder.layers[0].attention
    if attention.p2c and not attention.same_distance:
        raise ValueError("same_distance=False: the layout knows p2c as in the authors' code only")
    if type(encoder.relative) is not RelativeTable:
        raise ValueError(f"relative={type(encoder.relative).__name__}: the layout knows a RelativeTable only")
    check_decoder(model)
    return shared_configuration(model) | {"max_relative_positions": encoder.relative.k}


def check_decoder(model: Any) -> None:
    """Refuses a mask decoder that the released models do not have.

    Raises:
        ValueError: Naming what is different.
    """
    decoder = getattr(model, "decoder", None)
    if decoder is not None and (decoder.passes, decoder.add_states) != (2, True):
        found = f"passes={decoder.passes} and add_states={decoder.add_states}"
        raise ValueError(f"{found}: the layout knows passes=2 and add_states=True only")


def masked_lm(make: Any, around: Any, config: Config, arguments: dict[str, Any]) -> DeBERTaForMaskedLM:
    """`around` what `make` makes, with the decoder of the authors' code."""
    return around(make(**arguments), config.take("max_position_embeddings", 512), passes=2, add_states=True)


def sentences(make: Any, around: Any, config: Config, arguments: dict[str, Any]) -> DeBERTaForSentences:
    """`around` what `make` makes, with as many classes as the file has names for, or 2."""
    return around(make(**arguments), n_classes(config), config.take("cls_dropout", None))


LAYOUT = HeadLayout(
    "deberta",
    RULES,
    arguments,
    configuration,
    architectures={
        DeBERTa: Architecture("DebertaModel", "encoder."),
        DeBERTaForMaskedLM: Architecture("DebertaForMaskedLM", "", partial(masked_lm, DeBERTa, DeBERTaForMaskedLM)),
        DeBERTaForSentences: Architecture(
            "DebertaForSequenceClassification", "", partial(sentences, DeBERTa, DeBERTaForSentences)
        ),
    },
    prefix="deberta.",
    aliases=ALIASES,
    ignored=(r"deberta\.embeddings\.position_ids",),
    tied=TIED,
)
