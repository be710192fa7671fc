r"""A vector of a word from its characters, by convolution [@chiu2016named].

Imports: nothing from other modules.

Each character has a vector; filters look at windows of them; of each filter the largest answer in the word is kept. So
a word that was never seen still has its prefix, its suffix, its capitals, digits and dashes.

Symbols: c characters of the longest word, f filters, d width of a character's vector.

Differences from the paper:
    * No further features of characters (their type), of words (capitals) or of lists of names.
    * Sizes are those of a later paper [@ma2016end, Table 1], and so is the dropout on the characters' vectors.
    * Whatever stands beside a word, its vector is the same: windows beyond its own last character do not count.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

PAD = 0
"""The character that is none."""


class CharCNN(nn.Module):
    """Characters to a vector of f numbers a word.

    Args:
        n_chars: How many different characters, PAD included.
        d: Width of a character's vector.
        n_filters: f.
        window: How many characters a filter sees; odd, so that it can stand on each of them.
        dropout: On the characters' vectors.

    Raises:
        ValueError: If the window is even.
    """

    def __init__(self, n_chars: int, *, d: int = 30, n_filters: int = 30, window: int = 3, dropout: float = 0.0):
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"window={window} must be odd")
        self.embed = nn.Embedding(n_chars, d, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.convolution: Any = nn.Conv1d(d, n_filters, window, padding=window // 2)
        bound = math.sqrt(3 / d)
        nn.init.uniform_(self.embed.weight, -bound, bound)
        with torch.no_grad():
            self.embed.weight[PAD] = 0
        nn.init.xavier_uniform_(self.convolution.weight)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)

    def forward(self, chars: Int[Tensor, "*words c"]) -> Float[Tensor, "*words f"]:
        """The words' vectors; zeros for a word without characters.

        Args:
            chars: The characters by number, PAD after the last.
        """
        none = (words := chars.flatten(0, -2)) == PAD
        x = self.dropout(self.embed(words).masked_fill(none[..., None], 0))
        answers = self.convolution(x.mT).masked_fill(none[:, None], -math.inf).amax(2)
        return answers.masked_fill(none.all(1, keepdim=True), 0).tanh().unflatten(0, chars.shape[:-1])
