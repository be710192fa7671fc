r"""A deep LSTM reads a sentence into a vector, and a second one writes its translation [@sutskever2014sequence].

Imports: the cell and its layers are older [@hochreiter1997long]; `Stack` steps the decoder's layers as one,
`stepping` follows the hypotheses of a search, and `turned` is the order of a row read backwards.

Symbols: b batch, s source tokens, t target tokens, d cells in a layer, l layers, v target vocabulary.

Differences from the paper:
    * Sentences of a batch may differ in length: the padding is not read. The paper says that those of a batch are
      "roughly of the same length", and no more.
    * What starts a translation is the caller's token. In the paper's Figure 1 it is the end of the source.
    * There are no biases, unless asked for, and no peepholes. The paper takes its cells from Graves
      [@graves2013generating], where they have both; its parameters add up without.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.decoding import Step
from papercode.evaluation.perplexity import log_probabilities
from papercode.recurrent.fused import turned
from papercode.recurrent.layers import Recurrent, Stack
from papercode.recurrent.lstm import LSTMCell
from papercode.recurrent.unroll import Cell, State, shown, stepping, unroll


def reverse_source(source: Int[Tensor, "b s"], *, padding: int = 0) -> Int[Tensor, "b s"]:
    """Each row's tokens from last to first; padding stays at the end [@sutskever2014sequence, section 3.3]."""
    return source.gather(1, turned((source != padding).sum(1), source.shape[1]))


class Seq2Seq(nn.Module):
    r"""Two deep LSTMs with a vector between them.

    $$p(y_1 \dots y_t \mid x) = \prod_i p(y_i \mid v, y_1 \dots y_{i-1})$$

    v is the last state of all layers of the encoder, with which those of the decoder start.

    Args:
        source_size: Source vocabulary.
        target_size: Target vocabulary.
        width: d, of the layers and of the word vectors.
        n_layers: l, of each of the two LSTMs.
        padding: The token after the end of a shorter row.
        reverse: Whether the encoder reads the source from its last word to its first.
        bias: Whether cells and outputs have biases.
        spread: All parameters start uniformly between -spread and spread (section 3.4).
        cell: Makes the cell of a layer: `cell(inputs, width, bias=bias)`.
        run: What runs a cell along the sequences: `unroll`, or `fused`.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        width: int = 1000,
        n_layers: int = 4,
        *,
        padding: int = 0,
        reverse: bool = True,
        bias: bool = False,
        spread: float = 0.08,
        cell: Callable[..., Cell] = LSTMCell,
        run: Callable[..., tuple[Tensor, State]] = unroll,
    ):
        super().__init__()

        def make(i: int) -> Cell:
            return cell(i, width, bias=bias)

        self.padding, self.reverse = padding, reverse
        self.source, self.target = nn.Embedding(source_size, width), nn.Embedding(target_size, width)
        self.encoder = Recurrent(make, width, n_layers, run=run)
        self.decoder = Recurrent(make, width, n_layers, run=run)
        self.output = nn.Linear(width, target_size, bias=bias)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -spread, spread)

    def encode(self, source: Int[Tensor, "b s"]) -> tuple[State, ...]:
        """The encoder's last states, lowest layer first.

        Args:
            source: Tokens in their natural order, padded at the end.

        Raises:
            ValueError: If a row holds nothing but padding.
        """
        lengths = (source != self.padding).sum(1)
        if self.reverse:
            source = reverse_source(source, padding=self.padding)
        return self.encoder(self.source(source), lengths=lengths)[1]

    def sentence(self, source: Int[Tensor, "b s"]) -> Float[Tensor, "b n"]:
        """All that the decoder learns of a source, as one vector of 2·l·d numbers: h and c of each layer."""
        states = self.encode(source)
        return torch.cat([part for state in states for part in ([state] if isinstance(state, Tensor) else state)], 1)

    def forward(self, source: Int[Tensor, "b s"], inputs: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Scores of the next token after each prefix of `inputs` (teacher forcing).

        Args:
            source: Tokens in their natural order, padded at the end.
            inputs: A start token and the words of the true translation.

        Raises:
            ValueError: If a row of the source holds nothing but padding.
        """
        h, _ = self.decoder(self.target(inputs), self.encode(source))
        return self.output(h)

    def log_probability(self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"]) -> Float[Tensor, " b"]:
        """ln p of each whole translation.

        The mean over a batch, its sign turned, is the training loss (section 3.2); it also reranks others' hypotheses.

        Args:
            source: Tokens in their natural order, padded at the end.
            target: Start token, words, end token, padding.

        Raises:
            ValueError: If a row of the source holds nothing but padding.
        """
        outputs = target[:, 1:]
        return log_probabilities(self(source, target[:, :-1]), outputs, keep=outputs != self.padding).sum(1)

    def steps(self, source: Int[Tensor, "b s"]) -> Step:
        """A step of [`papercode.decoding`][papercode.decoding] that translates these sources.

        It keeps the state of each prefix, and reads only the tokens that are new. Ask for a new one for each search.

        Raises:
            ValueError: If a row of the source holds nothing but padding.
        """
        decoder = Stack(list(self.decoder.cells))

        def advance(token: Tensor, state: State) -> tuple[Tensor, State]:
            state = decoder(self.target(token), state)
            return self.output(shown(state)), state

        return stepping(advance, tuple(reversed(self.encode(source))))
