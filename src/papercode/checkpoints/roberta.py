"""RoBERTa's released weights [@liu2019roberta], as the transformers library stores them: BERT's names, other heads."""

from typing import Any

from papercode.checkpoints.bert import arguments as bert_arguments
from papercode.checkpoints.bert import configuration as bert_configuration
from papercode.checkpoints.bert import encoder_rules
from papercode.checkpoints.config import Config
from papercode.checkpoints.labels import labels, n_classes
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.encoders.roberta import (
    RoBERTa,
    RoBERTaForMaskedLM,
    RoBERTaForMultipleChoice,
    RoBERTaForSentences,
    RoBERTaForSpans,
    RoBERTaForTokens,
)

RULES = (
    *encoder_rules("roberta"),
    *(Rule(f"lm_head.dense.{kind}", f"mlm.transform.{kind}") for kind in ("weight", "bias")),
    Rule("lm_head.layer_norm.weight", "mlm.norm.gain"),
    Rule("lm_head.layer_norm.bias", "mlm.norm.bias"),
    Rule("lm_head.bias", "mlm.bias"),
    *(Rule(f"classifier.dense.{kind}", f"hidden.{kind}") for kind in ("weight", "bias")),
    *(Rule(f"classifier.out_proj.{kind}", f"output.{kind}") for kind in ("weight", "bias")),
    *(Rule(f"classifier.{kind}", f"classifier.{kind}") for kind in ("weight", "bias")),
    *(Rule(f"qa_outputs.{kind}", f"span.{kind}") for kind in ("weight", "bias")),
)


def arguments(config: Config) -> dict[str, Any]:
    """What RoBERTa is made with: BERT's, and the padding, behind whose id the positions begin."""
    pad = config.take("pad_token_id", 1)
    found = bert_arguments(config)
    n_positions = found["n_positions"]
    if not isinstance(pad, int) or n_positions <= pad + 1:
        raise ValueError(f"{config.source} has pad_token_id={pad} and max_position_embeddings={n_positions}: "
                         "positions are the rows after that of padding")  # fmt: skip
    return found | {"pad": pad, "n_positions": n_positions - pad - 1}


def configuration(model: Any) -> dict[str, Any]:
    """The inverse, for the encoder or what has one."""
    values = bert_configuration(model) | {"pad_token_id": getattr(model, "encoder", model).pad}
    if isinstance(model, RoBERTaForSentences):
        values |= labels(model.output.out_features)
    return values


def _sentences(config: Config, arguments: dict[str, Any]) -> RoBERTaForSentences:
    encoder = RoBERTa(**arguments, pooler=False)
    return RoBERTaForSentences(encoder, n_classes(config), config.take("classifier_dropout", None))


def _tokens(config: Config, arguments: dict[str, Any]) -> RoBERTaForTokens:
    encoder = RoBERTa(**arguments, pooler=False)
    return RoBERTaForTokens(encoder, n_classes(config), config.take("classifier_dropout", None))


def _choice(config: Config, arguments: dict[str, Any]) -> RoBERTaForMultipleChoice:
    return RoBERTaForMultipleChoice(RoBERTa(**arguments), config.take("classifier_dropout", None))


LAYOUT = Layout(
    "roberta",
    RULES,
    arguments,
    configuration,
    architectures={
        RoBERTa: Architecture("RobertaModel", "encoder."),
        RoBERTaForMaskedLM: Architecture(
            "RobertaForMaskedLM", "", lambda _, a: RoBERTaForMaskedLM(RoBERTa(**a, pooler=False))
        ),
        RoBERTaForSentences: Architecture("RobertaForSequenceClassification", "", _sentences),
        RoBERTaForTokens: Architecture("RobertaForTokenClassification", "", _tokens),
        RoBERTaForMultipleChoice: Architecture("RobertaForMultipleChoice", "", _choice),
        RoBERTaForSpans: Architecture(
            "RobertaForQuestionAnswering", "", lambda _, a: RoBERTaForSpans(RoBERTa(**a, pooler=False))
        ),
    },
    prefix="roberta.",
    ignored=(r"roberta\.embeddings\.position_ids",),
    tied={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
)
