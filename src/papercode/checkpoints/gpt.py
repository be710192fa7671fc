"""GPT's released weights [@radford2018improving], as the transformers library stores them."""

from typing import Any

from papercode.checkpoints.config import Config
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.decoders.gpt import GPT

_L, _OURS = "transformer.h.*.", "layers.*."
_NORMS = {"ln_1": "residuals.0.norm", "ln_2": "residuals.1.norm"}
_MAPS = {
    "attn.c_attn": ("attention.q", "attention.k", "attention.v"),
    "attn.c_proj": ("attention.o",),
    "mlp.c_fc": ("feed_forward.expand",),
    "mlp.c_proj": ("feed_forward.contract",),
}


def rules(words: str, positions: str) -> tuple[Rule, ...]:
    """Of the embeddings and of a layer; GPT-2 has the same."""
    return (
        Rule(f"{words}.weight", "words.weight"),
        Rule(f"{positions}.weight", "positions.weight"),
        *(Rule(f"{_L}{t}.weight", tuple(f"{_OURS}{o}.weight" for o in ours), True) for t, ours in _MAPS.items()),
        *(Rule(f"{_L}{t}.bias", tuple(f"{_OURS}{o}.bias" for o in ours)) for t, ours in _MAPS.items()),
        *(Rule(f"{_L}{t}.weight", f"{_OURS}{o}.gain") for t, o in _NORMS.items()),
        *(Rule(f"{_L}{t}.bias", f"{_OURS}{o}.bias") for t, o in _NORMS.items()),
    )


def arguments(config: Config) -> dict[str, Any]:
    """What a GPT is made with.

    Raises:
        ValueError: If the configuration has different rates of dropout, or an attribute is missing or not supported.
    """
    rates = {name: config.take(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(set(rates.values())) > 1:
        told = ", ".join(f"{name}={rate}" for name, rate in rates.items())
        raise ValueError(
            f"{config.source} has {told}; GPT has one rate of dropout. It matters in training only: make them equal"
        )
    dropout = rates["resid_pdrop"]
    config.expect(afn="gelu", predict_special_tokens={True, False})
    config.ignore("n_ctx", "n_special", "summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    config.ignore("summary_type", "summary_use_proj")
    return {
        "n_tokens": config.take("vocab_size"),
        "n_positions": config.take("n_positions"),
        "d_model": config.take("n_embd"),
        "n_heads": config.take("n_head"),
        "n_layers": config.take("n_layer"),
        "dropout": dropout,
        "eps": config.take("layer_norm_epsilon", 1e-5),
        "d_ff": 4 * config.take("n_embd"),
    }


def configuration(model: GPT) -> dict[str, Any]:
    """The inverse, as far as GPT and GPT-2 agree."""
    layer: Any = model.layers[0]
    return {
        "vocab_size": model.words.num_embeddings,
        "n_positions": model.positions.num_embeddings,
        "n_embd": model.words.embedding_dim,
        "n_head": layer.attention.q.out_features // layer.attention.d_k,
        "n_layer": len(model.layers),
        "resid_pdrop": model.dropout.p,
        "embd_pdrop": model.dropout.p,
        "attn_pdrop": layer.attention.dropout,
        "layer_norm_epsilon": layer.residuals[0].norm.eps,
    }


def _configuration(model: GPT) -> dict[str, Any]:
    layer: Any = model.layers[0]
    d_ff, d_model = layer.feed_forward.expand.out_features, model.words.embedding_dim
    if d_ff != 4 * d_model:
        raise ValueError(f"d_ff={d_ff} is not 4 times d_model={d_model}, and the layout of GPT has no other")
    return configuration(model) | {"afn": "gelu"}


LAYOUT = Layout(
    "openai-gpt",
    rules("transformer.tokens_embed", "transformer.positions_embed"),
    arguments,
    _configuration,
    architectures={GPT: Architecture("OpenAIGPTLMHeadModel")},
    prefix="transformer.",
    ignored=(r"transformer\.h\.\d+\.attn\.bias", r"transformer\.position_ids"),
    tied={"lm_head.weight": "transformer.tokens_embed.weight"},
)
