"""BERT's released weights [@devlin2019bert], as the transformers library stores them."""

from typing import Any

from papercode.checkpoints.config import Config
from papercode.checkpoints.labels import labels, n_classes
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.encoders.bert import BERT
from papercode.encoders.bert_pretraining import BERTForMaskedLM, BERTForNextSentence, BERTForPreTraining
from papercode.encoders.bert_tasks import BERTForMultipleChoice, BERTForSentences, BERTForSpans, BERTForTokens

_MAPS = {
    "attention.self.query": "attention.q",
    "attention.self.key": "attention.k",
    "attention.self.value": "attention.v",
    "attention.output.dense": "attention.o",
    "intermediate.dense": "feed_forward.expand",
    "output.dense": "feed_forward.contract",
}
_NORMS = {"attention.output.LayerNorm": "residuals.0.norm", "output.LayerNorm": "residuals.1.norm"}


def encoder_rules(name: str) -> tuple[Rule, ...]:
    """The encoder's, which the layouts of its descendants share but for the name in front."""
    embeddings, layer, ours_of_layer = f"{name}.embeddings.", f"{name}.encoder.layer.*.", "encoder.layers.*."
    return (
        Rule(embeddings + "word_embeddings.weight", "encoder.words.weight"),
        Rule(embeddings + "position_embeddings.weight", "encoder.positions.weight"),
        Rule(embeddings + "token_type_embeddings.weight", "encoder.segments.weight"),
        Rule(embeddings + "LayerNorm.weight", "encoder.norm.gain"),
        Rule(embeddings + "LayerNorm.bias", "encoder.norm.bias"),
        *(Rule(f"{layer}{theirs}.weight", f"{ours_of_layer}{ours}.weight") for theirs, ours in _MAPS.items()),
        *(Rule(f"{layer}{theirs}.bias", f"{ours_of_layer}{ours}.bias") for theirs, ours in _MAPS.items()),
        *(Rule(f"{layer}{theirs}.weight", f"{ours_of_layer}{ours}.gain") for theirs, ours in _NORMS.items()),
        *(Rule(f"{layer}{theirs}.bias", f"{ours_of_layer}{ours}.bias") for theirs, ours in _NORMS.items()),
        *(Rule(f"{name}.pooler.dense.{kind}", f"encoder.pooler.{kind}") for kind in ("weight", "bias")),
    )


RULES = (
    *encoder_rules("bert"),
    *(Rule(f"cls.predictions.transform.dense.{kind}", f"mlm.transform.{kind}") for kind in ("weight", "bias")),
    Rule("cls.predictions.transform.LayerNorm.weight", "mlm.norm.gain"),
    Rule("cls.predictions.transform.LayerNorm.bias", "mlm.norm.bias"),
    Rule("cls.predictions.bias", "mlm.bias"),
    *(Rule(f"cls.seq_relationship.{kind}", f"nsp.{kind}") for kind in ("weight", "bias")),
    *(Rule(f"classifier.{kind}", f"classifier.{kind}") for kind in ("weight", "bias")),
    *(Rule(f"qa_outputs.{kind}", f"span.{kind}") for kind in ("weight", "bias")),
)  # fmt: skip


def arguments(config: Config) -> dict[str, Any]:
    """What BERT is made with."""
    dropout = config.take("hidden_dropout_prob", 0.1)
    config.expect(hidden_act="gelu", attention_probs_dropout_prob=dropout, position_embedding_type="absolute")
    config.ignore("classifier_dropout", "num_labels")  # for those who have no classifier
    config.ignore("directionality", "pooler_fc_size", "pooler_num_attention_heads")
    config.ignore("pooler_num_fc_layers", "pooler_size_per_head", "pooler_type")
    return {
        "n_tokens": config.take("vocab_size"),
        "n_segments": config.take("type_vocab_size", 2),
        "n_positions": config.take("max_position_embeddings", 512),
        "d_model": config.take("hidden_size"),
        "n_heads": config.take("num_attention_heads"),
        "d_ff": config.take("intermediate_size"),
        "n_layers": config.take("num_hidden_layers"),
        "dropout": dropout,
        "eps": config.take("layer_norm_eps", 1e-12),
    }


def configuration(model: Any) -> dict[str, Any]:
    """The inverse, for the encoder or what has one."""
    encoder: BERT = getattr(model, "encoder", model)
    layer: Any = encoder.layers[0]
    values = {
        "vocab_size": encoder.words.num_embeddings,
        "type_vocab_size": encoder.segments.num_embeddings,
        "max_position_embeddings": encoder.positions.num_embeddings,
        "hidden_size": encoder.words.embedding_dim,
        "num_attention_heads": layer.attention.q.out_features // layer.attention.d_k,
        "intermediate_size": layer.feed_forward.expand.out_features,
        "num_hidden_layers": len(encoder.layers),
        "hidden_dropout_prob": encoder.dropout.p,
        "attention_probs_dropout_prob": layer.attention.dropout,
        "layer_norm_eps": encoder.norm.eps,
        "hidden_act": "gelu",
    }
    if hasattr(model, "dropout") and model is not encoder:
        values["classifier_dropout"] = model.dropout.p
    if isinstance(model, BERTForSentences | BERTForTokens):
        values |= labels(model.classifier.out_features)
    return values


def _sentences(config: Config, arguments: dict[str, Any]) -> BERTForSentences:
    return BERTForSentences(BERT(**arguments), n_classes(config), config.take("classifier_dropout", None))


def _tokens(config: Config, arguments: dict[str, Any]) -> BERTForTokens:
    encoder = BERT(**arguments, pooler=False)
    return BERTForTokens(encoder, n_classes(config), config.take("classifier_dropout", None))


def _choice(config: Config, arguments: dict[str, Any]) -> BERTForMultipleChoice:
    return BERTForMultipleChoice(BERT(**arguments), config.take("classifier_dropout", None))


LAYOUT = Layout(
    "bert",
    RULES,
    arguments,
    configuration,
    architectures={
        BERT: Architecture("BertModel", "encoder."),
        BERTForPreTraining: Architecture("BertForPreTraining", "", lambda _, a: BERTForPreTraining(BERT(**a))),
        BERTForMaskedLM: Architecture("BertForMaskedLM", "", lambda _, a: BERTForMaskedLM(BERT(**a, pooler=False))),
        BERTForNextSentence: Architecture(
            "BertForNextSentencePrediction", "", lambda _, a: BERTForNextSentence(BERT(**a))
        ),
        BERTForSentences: Architecture("BertForSequenceClassification", "", _sentences),
        BERTForTokens: Architecture("BertForTokenClassification", "", _tokens),
        BERTForMultipleChoice: Architecture("BertForMultipleChoice", "", _choice),
        BERTForSpans: Architecture("BertForQuestionAnswering", "", lambda _, a: BERTForSpans(BERT(**a, pooler=False))),
    },
    prefix="bert.",
    aliases={r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"},
    ignored=(r"bert\.embeddings\.position_ids",),
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)
