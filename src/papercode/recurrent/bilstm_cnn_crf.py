r"""BiLSTM-CNN-CRF: names and parts of speech from words and characters, without features made by hand [@ma2016end].

Imports: the character CNN [@chiu2016named]; what a CRF is, of which one is given [@huang2015bidirectional], `PairCRF`
being this paper's; the LSTM and its layers [@hochreiter1997long], with a forget gate [@gers2000learning].

Symbols: b batch, n words, c characters of the longest word, z what the BiLSTM shows, s scores that the CRF asks for.

Differences from the paper:
    * The CRF is chosen by the caller. `PairCRF(k)` is the paper's (section 2.3); `LinearChainCRF(k)` is what its
      name stands for in most libraries.
    * The filters' answers pass a tanh, as in the authors' code; the paper names no nonlinearity.
    * Dropout inverts: what is kept is scaled up in training, nothing is done in use.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.recurrent.char_cnn import CharCNN
from papercode.recurrent.crf import CRF
from papercode.recurrent.layers import Recurrent
from papercode.recurrent.lstm import LSTMCell
from papercode.recurrent.unroll import unroll


class BiLSTMCNNCRF(nn.Module):
    """A tagger; the defaults are those of the paper's Table 1.

    Args:
        n_words: How many different words, padding included.
        n_chars: How many different characters, padding (0) included.
        crf: The distribution over paths.
        d_word: Width of a word's vector.
        d_char: Width of a character's vector.
        n_filters: Of the character CNN.
        window: Of the character CNN.
        d: Cells of the LSTM in each direction.
        dropout: On the characters' vectors, on what goes into the BiLSTM and on what comes out.
        run: What runs a cell along the sentences: `unroll`, or `fused`.
    """

    def __init__(
        self,
        n_words: int,
        n_chars: int,
        crf: CRF,
        *,
        d_word: int = 100,
        d_char: int = 30,
        n_filters: int = 30,
        window: int = 3,
        d: int = 200,
        dropout: float = 0.5,
        run: Callable = unroll,
    ):
        super().__init__()
        self.words = nn.Embedding(n_words, d_word)
        self.chars = CharCNN(n_chars, d=d_char, n_filters=n_filters, window=window, dropout=dropout)
        self.lstm = Recurrent(lambda i: LSTMCell(i, d), d_word + n_filters, bidirectional=True, run=run)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(2 * d, crf.n_scores)
        self.crf = crf
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        r"""Sets the paper's start (section 3.1).

        Vectors lie within $\pm\sqrt{3/d}$, matrices of r rows and c columns, one a gate, within $\pm\sqrt{6/(r+c)}$;
        biases are 0, those of forget gates 1.
        """
        bound = math.sqrt(3 / self.words.embedding_dim)
        nn.init.uniform_(self.words.weight, -bound, bound)
        for cell in self.lstm.cells:
            for weight in (cell.input.weight, cell.hidden.weight):
                for gate in weight.chunk(4):
                    nn.init.xavier_uniform_(gate)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def scores(
        self, words: Int[Tensor, "b n"], chars: Int[Tensor, "b n c"], lengths: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b n s"]:
        """What the CRF is given.

        Args:
            words: By number.
            chars: The characters of each word by number, 0 after the last.
            lengths: How many words each sentence has; all n unless given.
        """
        x = torch.cat([self.words(words), self.chars(chars)], -1)
        z, _ = self.lstm(self.dropout(x), lengths=lengths)
        return self.output(self.dropout(z))

    def forward(
        self,
        words: Int[Tensor, "b n"],
        chars: Int[Tensor, "b n c"],
        tags: Int[Tensor, "b n"],
        lengths: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The loss of each sentence: minus the log-likelihood of its tags."""
        return self.crf(self.scores(words, chars, lengths), tags, lengths)

    @torch.no_grad()
    def decode(
        self, words: Int[Tensor, "b n"], chars: Int[Tensor, "b n c"], lengths: Int[Tensor, " b"] | None = None
    ) -> Int[Tensor, "b n"]:
        """The best tags of each sentence, 0 at the padding; without dropout only in `eval` mode."""
        return self.crf.decode(self.scores(words, chars, lengths), lengths)[0]


def decayed(rate: float, *, decay: float = 0.05, epoch: int = 1) -> Callable[[int], float]:
    r"""The paper's learning rate (section 3.2), $\eta_0 / (1 + \rho t)$, as `train` takes it.

    Args:
        rate: $\eta_0$; 0.015 for names, 0.01 for parts of speech.
        decay: $\rho$.
        epoch: Steps in an epoch; t is the number of epochs that are finished.
    """
    return lambda step: rate / (1 + decay * ((step - 1) // epoch))
