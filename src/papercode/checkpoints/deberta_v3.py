"""DeBERTaV3's released weights [@he2023debertav3], and version 2's, as the transformers library stores them."""

from functools import partial
from typing import Any

from papercode.checkpoints.config import Config
from papercode.checkpoints.deberta import (
    ALIASES,
    SHARED,
    TIED,
    check_decoder,
    masked_lm,
    reach,
    sentences,
    shared_configuration,
    sizes,
    terms,
)
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.encoders.deberta_shared import SharedAttention
from papercode.encoders.deberta_v3 import (
    DeBERTaV3,
    DeBERTaV3ForMaskedLM,
    DeBERTaV3ForSentences,
    LogTable,
)
from papercode.encoders.deberta_v3_pretraining import DeBERTaV3Discriminator

_SELF, _OURS = "deberta.encoder.layer.*.attention.self.", "encoder.layers.*.attention."
_MAPS = {"query_proj": "q", "key_proj": "k", "value_proj": "v"}
_VERDICT = {"dense": "transform", "classifier": "verdict"}
RULES = (
    *SHARED,
    *(Rule(f"{_SELF}{theirs}.weight", f"{_OURS}{ours}.weight") for theirs, ours in _MAPS.items()),
    *(Rule(f"{_SELF}{theirs}.bias", f"{_OURS}{ours}.bias") for theirs, ours in _MAPS.items()),
    Rule("deberta.encoder.LayerNorm.weight", "encoder.relative.norm.gain"),
    Rule("deberta.encoder.LayerNorm.bias", "encoder.relative.norm.bias"),
    *(Rule(f"mask_predictions.{theirs}.weight", f"{ours}.weight") for theirs, ours in _VERDICT.items()),
    *(Rule(f"mask_predictions.{theirs}.bias", f"{ours}.bias") for theirs, ours in _VERDICT.items()),
    Rule("mask_predictions.LayerNorm.weight", "norm.gain"),
    Rule("mask_predictions.LayerNorm.bias", "norm.bias"),
)


def arguments(config: Config) -> dict[str, Any]:
    """What DeBERTaV3 is made with.

    Raises:
        ValueError: If the table of distances is normalised in another way, or positions have maps of their own.
    """
    found, values, buckets = terms(config), sizes(config), config.take("position_buckets", -1)
    norm, shared = config.take("norm_rel_ebd", "none"), config.take("share_att_key", False)
    if norm not in ("none", "layer_norm"):
        raise ValueError(f"{config.source} has norm_rel_ebd={norm!r}; only 'layer_norm' or 'none' is supported")
    if found and not shared:
        raise ValueError(f"{config.source} has share_att_key={shared!r}; only True is supported")
    config.expect(attention_head_size=values["d_model"] // values["n_heads"], conv_kernel_size=0)
    config.ignore("conv_act", "conv_groups")
    return values | {
        "k": buckets if buckets > 0 else reach(config),
        "max_distance": reach(config) if buckets > 0 else 0,
        "norm_table": norm == "layer_norm",
        "make_attention": partial(SharedAttention, c2p="c2p" in found, p2c="p2c" in found),
    }


def configuration(model: Any) -> dict[str, Any]:
    """The inverse.

    Raises:
        ValueError: If the layout has no words for the model: another table, another decoder.
    """
    encoder: DeBERTaV3 = getattr(model, "encoder", model)
    table = encoder.relative
    if not isinstance(table, LogTable):
        raise ValueError(f"relative={type(table).__name__}: the layout knows a LogTable only")
    check_decoder(model)
    return shared_configuration(model) | {
        "position_buckets": table.k if table.max_distance else -1,
        "max_relative_positions": table.max_distance or table.k,
        "norm_rel_ebd": "none" if table.norm is None else "layer_norm",
        "share_att_key": True,
    }


LAYOUT = Layout(
    "deberta-v2",
    RULES,
    arguments,
    configuration,
    architectures={
        DeBERTaV3: Architecture("DebertaV2Model", "encoder."),
        DeBERTaV3ForMaskedLM: Architecture(
            "DebertaV2ForMaskedLM", "", partial(masked_lm, DeBERTaV3, DeBERTaV3ForMaskedLM)
        ),
        DeBERTaV3ForSentences: Architecture(
            "DebertaV2ForSequenceClassification", "", partial(sentences, DeBERTaV3, DeBERTaV3ForSentences)
        ),
        DeBERTaV3Discriminator: Architecture(
            "DebertaV2Model", "", lambda _, arguments: DeBERTaV3Discriminator(DeBERTaV3(**arguments))
        ),
    },
    prefix="deberta.",
    aliases=ALIASES | {r"^mask_predictions\.classifer": "mask_predictions.classifier"},  # as the authors' code has it
    ignored=(r"deberta\.embeddings\.position_ids",),
    tied=TIED,
)
