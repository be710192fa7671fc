r"""DeBERTa's way to hidden words [@he2021deberta, section 3.2]: positions come in just before the softmax.

Imports: the encoder is this paper's; `MaskedLMHead` is BERT's [@devlin2019bert].

Symbols: b batch, n positions, d width. The paper's $H$ = states, $I$ = x, $n$ = passes.

Differences from the paper:
    * add_states: the first input $I$ is the absolute positions in appendix A.8, and their sum with $H$ in appendix A.9
      and in the authors' code, and so in the released weights. It is the sum here unless told otherwise.
    * Whose layer the decoder's passes share, the paper does not say. In the authors' code it is the encoder's last
      one, and $H$ is what enters it: the decoder brings no weights but the table of positions.
    * All positions are decoded, as in the authors' code; appendix A.7 counts the cost for the hidden ones only.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import initialise
from papercode.encoders.bert_pretraining import MaskedLMHead
from papercode.encoders.deberta import DeBERTa
from papercode.encoders.deberta_attention import Relative


class EnhancedMaskDecoder(nn.Module):
    """Asks the states from an absolute position, some times over, through one layer (Figure 2).

    Args:
        n_positions: The longest text.
        d_model: Width of states and positions.
        passes: How often.
        add_states: Whether the first question is position and state, and not the position alone.

    Raises:
        ValueError: If passes is less than 1.
    """

    def __init__(self, n_positions: int, d_model: int, passes: int = 2, add_states: bool = True):
        super().__init__()
        if passes < 1:
            raise ValueError(f"passes={passes} must be at least 1")
        self.passes, self.add_states = passes, add_states
        self.positions = nn.Embedding(n_positions, d_model)
        initialise(self.positions)

    def forward(
        self, states: Float[Tensor, "b n d"], layer: nn.Module, *, relative: Relative, mask: Tensor | None = None
    ) -> Float[Tensor, "b n d"]:
        """Keys and values are of the states each time; queries, and what is added, of what came before.

        Args:
            states: H.
            layer: An EncoderLayer with disentangled attention.
            relative: For its attention.
            mask: Likewise.

        Raises:
            ValueError: If the text is longer than n_positions.
        """
        n = states.shape[1]
        if n > len(self.positions.weight):
            raise ValueError(f"states have length {n}, but n_positions={len(self.positions.weight)}")
        x = self.positions.weight[:n].expand_as(states)
        x = x + states if self.add_states else x
        for _ in range(self.passes):
            x = layer(x, memory=states, relative=relative, mask=mask)
        return x


class DeBERTaForMaskedLM(Pretrained, layout="deberta"):
    """Names hidden words.

    Args:
        encoder: Its last layer is the decoder's, too.
        n_positions: The longest text.
        passes: Of the decoder.
        add_states: Likewise.
    """

    def __init__(self, encoder: DeBERTa, n_positions: int = 512, passes: int = 2, add_states: bool = True):
        super().__init__()
        words = encoder.words.weight
        self.encoder = encoder
        self.decoder = EnhancedMaskDecoder(n_positions, words.shape[1], passes, add_states).to(words)
        self.mlm = MaskedLMHead(words.shape[1], len(words), encoder.norm.eps).to(words)

    def states(self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        """What the decoder gives."""
        below = self.encoder.encode(self.encoder.words(tokens), keep, len(self.encoder.layers) - 1)
        relative, mask = self.encoder.relative(tokens.shape[1]), None if keep is None else keep[:, None, None, :]
        return self.decoder(below, self.encoder.layers[-1], relative=relative, mask=mask)

    def forward(
        self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the word at each position; arguments as for `DeBERTa`."""
        return self.mlm(self.states(tokens, keep), self.encoder.words.weight)

    def loss(
        self, tokens: Int[Tensor, "b n"], targets: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, ""]:
        """Of the words that are asked for; targets is IGNORED elsewhere."""
        return self.mlm.loss(self.states(tokens, keep), self.encoder.words.weight, targets)
