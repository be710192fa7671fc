r"""Deep LSTMs with attention on top, and the attentional vector fed back [@luong2015effective].

Imports: the ways to look are the same paper's; `Memory` is what the decoder looks at [@bahdanau2015neural]; the layers,
their step and the loop are those of all recurrent networks [@hochreiter1997long].

Symbols: b batch, m source words, n target words, v target vocabulary, i width of the inputs, d width of the layers, e
of the keys. The paper's $h_t$ is what the highest layer shows, $\tilde h_t$ the attentional vector.

Differences from the paper:
    * Before the first step the fed vector is zeros, of which the paper does not speak.
    * The source is read as it comes; who wants it reversed, as the paper does, reverses it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.recurrent.bahdanau import Memory
from papercode.recurrent.layers import Recurrent, Stack
from papercode.recurrent.lstm import LSTMCell
from papercode.recurrent.luong import GeneralScore, LocalP
from papercode.recurrent.unroll import Cell, State, shown, stepping, unroll


class AttentionalState(NamedTuple):
    r"""What the decoder hands to its next step.

    Attributes:
        attentional: (b d), $\tilde h_t$.
        cells: The states of the layers.
        weights: (b m), where it looked, $a_t$.
        t: (b), the number of the next step, from 0.
        memory: What there is to look at.
    """

    attentional: Tensor
    cells: State
    weights: Tensor
    t: Tensor
    memory: Memory


class AttentionalCell(Cell):
    r"""A step of the layers, then a look at the source with what they now show (Eq. 5, and section 3.3).

    $$h_t = \mathrm{LSTM}([y_{t-1}; \tilde h_{t-1}]), \quad c_t = \mathrm{attend}(h_t, \bar h), \quad
    \tilde h_t = \tanh(W_c [c_t; h_t])$$

    Args:
        cells: The layers as one cell: a `Stack`. With feeding its inputs are i + d wide.
        attend: How it looks: `Global`, `LocalM`, `LocalP`.
        e: Width of the keys.
        feeding: Whether the layers also read the last $\tilde h$.
    """

    def __init__(self, cells: Cell, attend: nn.Module, e: int, *, feeding: bool = True):
        super().__init__()
        self.width, self.feeding = cells.width, feeding
        self.cells, self.attend = cells, attend
        self.combine = nn.Linear(e + cells.width, cells.width, bias=False)

    def begin(
        self, cells: State, keys: Float[Tensor, "b m e"], keep: Bool[Tensor, "b m"] | None = None
    ) -> AttentionalState:
        """The state before the first step, for layers in the states `cells`, and the keys projected for all steps."""
        keep = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device) if keep is None else keep
        score: Any = self.attend.score
        memory, b = Memory(keys, score.project(keys), keep), len(keys)
        t = torch.zeros(b, dtype=torch.long, device=keys.device)
        return AttentionalState(keys.new_zeros(b, self.width), cells, keys.new_zeros(keys.shape[:2]), t, memory)

    def start(self, x: Float[Tensor, "b *rest"]) -> AttentionalState:
        """There is none without a source.

        Raises:
            TypeError: Always.
        """
        raise TypeError("AttentionalCell needs a state: begin(cells, keys, keep) makes the first")

    def project(self, x: Float[Tensor, "*rest i"]) -> Float[Tensor, "*rest p"]:
        """What the lowest layer needs of the input; with feeding, that is only known in the step."""
        return x if self.feeding else self.cells.project(x)

    def step(self, projected: Float[Tensor, "b p"], state: AttentionalState) -> AttentionalState:
        """One word further."""
        if self.feeding:
            projected = self.cells.project(torch.cat([projected, state.attentional], -1))
        cells = self.cells.step(projected, state.cells)
        h = shown(cells)
        context, weights = self.attend(h, state.memory, state.t)
        attentional = torch.tanh(self.combine(torch.cat([context, h], -1)))
        return AttentionalState(attentional, cells, weights, state.t + 1, state.memory)


class AttentionalSeq2Seq(nn.Module):
    r"""Two stacks of LSTMs, the second with attention to the highest layer of the first.

    The defaults are the best single model of the paper's Table 1: local-p with the general score, and input feeding.

    Args:
        n_source: Size of the source vocabulary.
        n_target: Size of the target vocabulary.
        d: Width of the word vectors and of all layers.
        n_layers: Of the encoder, and of the decoder.
        attend: How the decoder looks at the source.
        feeding: Whether the attentional vector is fed back.
        dropout: Between the layers; the paper's better models have 0.2.
        spread: The initial weights are uniform between -spread and spread (section 4.1).
        run: What runs the encoder's cells along the source: `unroll`, or `fused`.
    """

    def __init__(
        self,
        n_source: int,
        n_target: int,
        *,
        d: int = 1000,
        n_layers: int = 4,
        attend: nn.Module | None = None,
        feeding: bool = True,
        dropout: float = 0.0,
        spread: float = 0.1,
        run: Callable[..., tuple[Tensor, State]] = unroll,
    ):
        super().__init__()
        self.source, self.target = nn.Embedding(n_source, d), nn.Embedding(n_target, d)
        self.encoder = Recurrent(lambda i: LSTMCell(i, d), d, n_layers, dropout=dropout, run=run)
        cells: Sequence[Cell] = [LSTMCell(2 * d if feeding and not layer else d, d) for layer in range(n_layers)]
        attend = LocalP(GeneralScore(d, d), d) if attend is None else attend
        self.decoder = AttentionalCell(Stack(cells, dropout=dropout), attend, d, feeding=feeding)
        self.logits = nn.Linear(d, n_target, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -spread, spread)

    def encode(self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"] | None = None) -> AttentionalState:
        """Reads the source.

        Args:
            source: The source words.
            lengths: How many each row has; the rest is padding. All m unless given.

        Returns:
            The state before the first target word: each layer of the decoder begins where the encoder's ended.
        """
        keys, states = self.encoder(self.source(source), lengths=lengths)
        keep = None
        if lengths is not None:
            keep = torch.arange(source.shape[1], device=source.device) < lengths[:, None]
        return self.decoder.begin(tuple(reversed(states)), keys, keep)

    def decode(
        self, target: Int[Tensor, "b n"], state: AttentionalState
    ) -> tuple[Float[Tensor, "b n v"], Float[Tensor, "b n m"]]:
        """Logits of the word after each target word (Eq. 6), and where the model looked for it."""
        emitted, _ = unroll(self.decoder, self.target(target), state, emit=lambda new: (new.attentional, new.weights))
        return self.logits(emitted[0]), emitted[1]

    def forward(
        self, source: Int[Tensor, "b m"], target: Int[Tensor, "b n"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n v"]:
        """Logits for all target positions, as in training: position t is fed the true word before it."""
        return self.decode(target, self.encode(source, lengths))[0]

    @torch.no_grad()
    def steps(
        self, source: Int[Tensor, "b m"], lengths: Int[Tensor, " b"] | None = None
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """A step for `greedy_search` and `beam_search` of papercode.decoding, which translates this source."""

        def advance(token: Tensor, state: State) -> tuple[Tensor, State]:
            state = self.decoder(self.target(token), state)
            return self.logits(state.attentional), state

        return stepping(advance, self.encode(source, lengths))
