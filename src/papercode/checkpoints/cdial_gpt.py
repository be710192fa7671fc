"""CDial-GPT's released weights [@wang2020large]: GPT's layout, whose token types are words of the same table."""

from dataclasses import replace

from papercode.checkpoints.gpt import LAYOUT as GPT_LAYOUT
from papercode.checkpoints.layout import Architecture
from papercode.decoders.cdial_gpt import CDialGPT

LAYOUT = replace(GPT_LAYOUT, architectures={CDialGPT: Architecture("OpenAIGPTLMHeadModel")})
