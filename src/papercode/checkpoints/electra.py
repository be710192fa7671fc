"""ELECTRA's released weights [@clark2020electra], as the transformers library stores them: generators and others."""

from typing import Any

from papercode.checkpoints.bert import arguments as bert_arguments
from papercode.checkpoints.bert import configuration as bert_configuration
from papercode.checkpoints.bert import encoder_rules
from papercode.checkpoints.config import Config
from papercode.checkpoints.labels import labels, n_classes
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.encoders.electra import ELECTRA, ELECTRAForSentences, ELECTRAForSpans, ELECTRAForTokens
from papercode.encoders.electra_pretraining import ELECTRADiscriminator, ELECTRAGenerator

_MAPS = {
    "electra.embeddings_project": "encoder.project",
    "generator_predictions.dense": "mlm.transform",
    "discriminator_predictions.dense": "transform",
    "discriminator_predictions.dense_prediction": "verdict",
    "classifier.dense": "hidden",
    "classifier.out_proj": "output",
    "classifier": "classifier",
    "qa_outputs": "span",
}
_BOTH = ("weight", "bias")
RULES = (
    *(rule for rule in encoder_rules("electra") if "pooler" not in rule.ours),
    *(Rule(f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in _MAPS.items() for kind in _BOTH),
    Rule("generator_predictions.LayerNorm.weight", "mlm.norm.gain"),
    Rule("generator_predictions.LayerNorm.bias", "mlm.norm.bias"),
    Rule("generator_lm_head.bias", "mlm.bias"),
)  # fmt: skip


def arguments(config: Config) -> dict[str, Any]:
    """What ELECTRA's encoder is made with: BERT's, and the width of the embeddings."""
    config.ignore("summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj")  # of no head here
    return bert_arguments(config) | {"d_embedding": config.take("embedding_size", 128)}


def configuration(model: Any) -> dict[str, Any]:
    """The inverse, for the encoder or what has one."""
    encoder: ELECTRA = getattr(model, "encoder", model)
    values = bert_configuration(model) | {"hidden_size": encoder.d_model, "embedding_size": encoder.d_embedding}
    if isinstance(model, ELECTRAForSentences):
        values |= labels(model.output.out_features)
    return values


def _sentences(config: Config, arguments: dict[str, Any]) -> ELECTRAForSentences:
    return ELECTRAForSentences(ELECTRA(**arguments), n_classes(config), config.take("classifier_dropout", None))


def _tokens(config: Config, arguments: dict[str, Any]) -> ELECTRAForTokens:
    return ELECTRAForTokens(ELECTRA(**arguments), n_classes(config), config.take("classifier_dropout", None))


LAYOUT = Layout(
    "electra",
    RULES,
    arguments,
    configuration,
    architectures={
        ELECTRA: Architecture("ElectraModel", "encoder."),
        ELECTRADiscriminator: Architecture(
            "ElectraForPreTraining", "", lambda _, a: ELECTRADiscriminator(ELECTRA(**a))
        ),
        ELECTRAGenerator: Architecture("ElectraForMaskedLM", "", lambda _, a: ELECTRAGenerator(ELECTRA(**a))),
        ELECTRAForSentences: Architecture("ElectraForSequenceClassification", "", _sentences),
        ELECTRAForTokens: Architecture("ElectraForTokenClassification", "", _tokens),
        ELECTRAForSpans: Architecture("ElectraForQuestionAnswering", "", lambda _, a: ELECTRAForSpans(ELECTRA(**a))),
    },
    prefix="electra.",
    ignored=(r"electra\.embeddings\.position_ids",),
    tied={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
)
