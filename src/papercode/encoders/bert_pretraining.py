r"""What BERT is trained on first [@devlin2019bert, section 3.1]: to name hidden words, and whether B follows A.

Imports: `BERT` and `initialise` (same paper), `LayerNorm` [@ba2016layer].

Symbols: b batch, n positions, d width. The paper's $T_i$ = states[:, i], $C$ = states[:, 0].

Differences from the paper:
    * Between state and softmax stand a layer with GELU and a norm, and each word has a bias. The paper names none of
      them; they are in the authors' code and in the released weights. That the last map is the table of words, too.
    * Whether B follows A is read from the pooler's output, not from C itself, as in the authors' code.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from papercode.attention.layer_norm import LayerNorm
from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import BERT, initialise

IGNORED = -100
"""The target of a position whose word is not asked for."""


class MaskedLMHead(nn.Module):
    """Logits of the word at a position.

    Args:
        d_model: Width of the states.
        n_tokens: Size of the vocabulary.
        eps: Of the norm.
    """

    def __init__(self, d_model: int, n_tokens: int, eps: float = 1e-12):
        super().__init__()
        self.transform, self.activation, self.norm = nn.Linear(d_model, d_model), nn.GELU(), LayerNorm(d_model, eps)
        self.bias = nn.Parameter(torch.zeros(n_tokens))
        self.apply(initialise)

    def forward(
        self, states: Float[Tensor, "*batch d"], words: Float[Tensor, "n_tokens d"]
    ) -> Float[Tensor, "*batch n_tokens"]:
        """`words` is the encoder's table: it is given with each call, and belongs to the encoder alone."""
        return linear(self.norm(self.activation(self.transform(states))), words, self.bias)

    def loss(
        self, states: Float[Tensor, "b n d"], words: Float[Tensor, "n_tokens d"], targets: Int[Tensor, "b n"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy, the mean over the positions that are asked for (0 if none is); the others cost no logits."""
        asked = targets != IGNORED
        if not asked.any():
            return states.sum() * 0.0
        return cross_entropy(self(states[asked], words), targets[asked])


class BERTForMaskedLM(Pretrained, layout="bert"):
    """Names hidden words.

    Args:
        encoder: A pooler is not used.
    """

    def __init__(self, encoder: BERT):
        super().__init__()
        self.encoder, self.mlm = encoder, _head(encoder)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the word at each position; arguments as for [`BERT`][papercode.encoders.bert.BERT.forward]."""
        return self.mlm(self.encoder(tokens, segments, keep), self.encoder.words.weight)

    def loss(
        self,
        tokens: Int[Tensor, "b n"],
        targets: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Of the words that are asked for; targets is IGNORED elsewhere."""
        return self.mlm.loss(self.encoder(tokens, segments, keep), self.encoder.words.weight, targets)


class BERTForNextSentence(Pretrained, layout="bert"):
    """Tells whether the second text of a pair follows the first.

    Args:
        encoder: With its pooler.

    Raises:
        ValueError: If it has none.
    """

    def __init__(self, encoder: BERT):
        super().__init__()
        self.encoder, self.nsp = encoder, new_layer(encoder, 2, pooled=True)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Two logits: of `it follows`, and of `it comes from somewhere else`, in this order."""
        return self.nsp(self.encoder.pool(self.encoder(tokens, segments, keep)))


class BERTForPreTraining(Pretrained, layout="bert"):
    """Both at once, as BERT is trained.

    Args:
        encoder: With its pooler.

    Raises:
        ValueError: If it has none.
    """

    def __init__(self, encoder: BERT):
        super().__init__()
        self.encoder, self.mlm, self.nsp = encoder, _head(encoder), new_layer(encoder, 2, pooled=True)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b n n_tokens"], Float[Tensor, "b 2"]]:
        """Logits of the word at each position; and two, of `it follows` and `it does not`, in this order."""
        states = self.encoder(tokens, segments, keep)
        return self.mlm(states, self.encoder.words.weight), self.nsp(self.encoder.pool(states))

    def loss(
        self,
        tokens: Int[Tensor, "b n"],
        targets: Int[Tensor, "b n"],
        follows: Bool[Tensor, " b"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean loss of hidden words plus the mean loss of pairs (appendix A.2).

        Args:
            tokens: After [`mask_tokens`][papercode.encoders.bert_data.mask_tokens].
            targets: The right words, IGNORED where none is asked for.
            follows: Whether the second text follows the first.
            segments: As for the encoder.
            keep: As for the encoder.
        """
        states = self.encoder(tokens, segments, keep)
        words = self.mlm.loss(states, self.encoder.words.weight, targets)
        return words + cross_entropy(self.nsp(self.encoder.pool(states)), (~follows).long())


def new_layer(encoder: BERT, n_out: int, *, pooled: bool = False) -> nn.Linear:
    """A linear map for the encoder's states, or for what its pooler makes of them, with fresh weights.

    Args:
        encoder: Whose width, dtype and device it has.
        n_out: Width of the output.
        pooled: Whether it will read the pooler's output.

    Raises:
        ValueError: If n_out is less than 1, or the encoder has no pooler to read from.
    """
    if n_out < 1:
        raise ValueError(f"n_out={n_out} must be at least 1")
    if pooled and encoder.pooler is None:
        raise ValueError("encoder has no pooler (it was made with pooler=False), and this model reads from it")
    layer = nn.Linear(encoder.d_model, n_out).to(encoder.words.weight)
    initialise(layer)
    return layer


def _head(encoder: BERT) -> MaskedLMHead:
    n_tokens, d_model = encoder.words.weight.shape
    return MaskedLMHead(d_model, n_tokens, encoder.norm.eps).to(encoder.words.weight)
