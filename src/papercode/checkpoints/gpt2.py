"""GPT-2's released weights [@radford2019language], as the transformers library stores them.

A GPT-3 whose layers are all dense [@brown2020language] has the same layout; banded ones have none.
"""

from typing import Any

from papercode.checkpoints.config import Config
from papercode.checkpoints.gpt import arguments as gpt_arguments
from papercode.checkpoints.gpt import configuration as gpt_configuration
from papercode.checkpoints.gpt import rules
from papercode.checkpoints.layout import Architecture, Layout, Rule
from papercode.decoders.gpt2 import GPT2
from papercode.decoders.gpt3 import GPT3


def arguments(config: Config) -> dict[str, Any]:
    """What GPT-2 is made with."""
    config.expect(
        activation_function="gelu_new",
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        reorder_and_upcast_attn=False,
    )
    return gpt_arguments(config) | {"d_ff": config.take("n_inner", None)}


def configuration(model: GPT2) -> dict[str, Any]:
    """The inverse."""
    layer: Any = model.layers[0]
    d_ff, d_model = layer.feed_forward.expand.out_features, model.words.embedding_dim
    return gpt_configuration(model) | {
        "activation_function": "gelu_new",
        "n_inner": None if d_ff == 4 * d_model else d_ff,
    }


LAYOUT = Layout(
    "gpt2",
    (
        *rules("transformer.wte", "transformer.wpe"),
        Rule("transformer.ln_f.weight", "norm.gain"),
        Rule("transformer.ln_f.bias", "norm.bias"),
    ),
    arguments,
    configuration,
    architectures={GPT2: Architecture("GPT2LMHeadModel"), GPT3: Architecture("GPT2LMHeadModel")},
    prefix="transformer.",
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
    tied={"lm_head.weight": "transformer.wte.weight"},
)
