r"""The RNN encoder-decoder [@cho2014learning]: one vector for a phrase, and the probability of another phrase given it.

Imports: `Cell` and `unroll` run encoder and decoder alike [@hochreiter1997long]. The paper's units stand in `gru` and
`decoder_cell`, `maxout` in a module of its own.

Symbols: b batch, s and t steps of source and target, v words, e width of word vectors and rank of the output matrix,
d hidden units, m width of the summary c, k maxout units.

Differences from the paper:
    * There are biases, which the paper leaves out of its equations.
    * The output layer reads the vector of the last word, as the gates do; appendix A.1.2 writes the word itself.
    * Word vectors have width 100, the rank that section 4.1 gives; the appendix has 500.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.decoder_cell import DecoderCell, ResetAfterDecoderCell
from papercode.recurrent.gru import GRUCell
from papercode.recurrent.maxout import maxout
from papercode.recurrent.unroll import Cell, State, stepping, unroll


class LastState(nn.Module):
    r"""The summary $c = \tanh(V h_s)$ of a cell's last state [@cho2014learning, appendix A.1.1].

    Args:
        cell: Reads the source.

    Attributes:
        width: m, that of the cell.
    """

    def __init__(self, cell: Cell):
        super().__init__()
        self.cell, self.summary, self.width = cell, nn.Linear(cell.width, cell.width), cell.width

    def forward(self, x: Float[Tensor, "b s e"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b m"]:
        """c of each source, which has `lengths` words, s unless given."""
        _, h = unroll(self.cell, x, lengths=lengths)
        return self.summary(h).tanh()


class DeepOutput(nn.Module):
    r"""Logits of the next word, $G_l G_r \, \mathrm{maxout}(O_h h_t + O_y y_{t-1} + O_c c)$ [@cho2014learning, A.1.2].

    Args:
        e: Width of word vectors.
        d: Hidden units.
        m: Width of the summary.
        k: Maxout units, each the larger of two numbers.
        rank: Inner width of the output matrix.
        v: Words.
    """

    def __init__(self, e: int, d: int, m: int, k: int, rank: int, v: int):
        super().__init__()
        self.h, self.y = nn.Linear(d, 2 * k), nn.Linear(e, 2 * k, bias=False)
        self.c = nn.Linear(m, 2 * k, bias=False)
        self.right, self.left = nn.Linear(k, rank, bias=False), nn.Linear(rank, v)

    def forward(
        self, h: Float[Tensor, "b *t d"], y: Float[Tensor, "b *t e"], c: Float[Tensor, "b m"]
    ) -> Float[Tensor, "b *t v"]:
        """Logits at one step, or at all of them with the same c."""
        c = self.c(c)
        s = maxout(self.h(h) + self.y(y) + (c if h.ndim == 2 else c[:, None]))
        return self.left(self.right(s))


class RNNEncoderDecoder(nn.Module):
    """The whole model.

    Args:
        n_source: Words of the source.
        n_target: Words of the target.
        e: Width of word vectors, and rank of the output matrix.
        d: Hidden units of encoder and decoder, and width of the summary.
        k: Maxout units of the output layer.
        start: The token that stands before the first word; its vector is 0 and stays 0.
        encoder: Summarises word vectors, `encoder(x, lengths) -> c`; a `LastState` of a `GRUCell` unless given.
        decoder: A `ResetAfterDecoderCell`, as in the appendix, unless given.
    """

    def __init__(
        self,
        n_source: int,
        n_target: int,
        *,
        e: int = 100,
        d: int = 1000,
        k: int = 500,
        start: int,
        encoder: nn.Module | None = None,
        decoder: DecoderCell | None = None,
    ):
        super().__init__()
        self.source, self.target = nn.Embedding(n_source, e), nn.Embedding(n_target, e, padding_idx=start)
        self.encoder = LastState(GRUCell(e, d)) if encoder is None else encoder
        self.decoder = ResetAfterDecoderCell(e, d, d) if decoder is None else decoder
        self.output = DeepOutput(e, self.decoder.width, self.decoder.context.in_features, k, e, n_target)

    def encode(self, source: Int[Tensor, "b s"], lengths: Int[Tensor, " b"] | None = None) -> Float[Tensor, "b m"]:
        """c of each source. The end symbol that closes a source in the paper is the caller's to add."""
        return self.encoder(self.source(source), lengths)

    def decode(self, c: Float[Tensor, "b m"], target: Int[Tensor, "b t"]) -> Float[Tensor, "b t v"]:
        """Logits of the word after each of target, which begins with `start`."""
        y = self.target(target)
        h, _ = unroll(self.decoder, y, self.decoder.begin(c))
        return self.output(h, y, c)

    def forward(
        self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b t v"]:
        """Logits of the word after each of target; lengths are those of the sources."""
        return self.decode(self.encode(source, lengths), target)

    def steps(self, c: Float[Tensor, "b m"]) -> Callable[[Tensor, Tensor], Tensor]:
        """A step for [`papercode.decoding`][papercode.decoding] that begins with these summaries; for one search."""

        def advance(token: Tensor, state: State) -> tuple[Tensor, State]:
            y = self.target(token)
            state = self.decoder(y, state)
            return self.output(state.h, y, state.c), state

        return stepping(advance, self.decoder.begin(c))


@torch.no_grad()
def initialise(model: nn.Module) -> nn.Module:
    """The paper's start (section 4.1): N(0, 0.01²), but each gate's recurrent matrix orthogonal; biases 0."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=0.01)
    for module in model.modules():
        if isinstance(module, GRUCell):
            for matrix in module.hidden.weight.split(module.width):
                nn.init.orthogonal_(matrix)
        elif isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx] = 0
    return model
