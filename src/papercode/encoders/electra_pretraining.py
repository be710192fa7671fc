r"""How ELECTRA is trained [@clark2020electra, section 2]: a small model replaces words, a large one finds them.

Imports: `ELECTRA`, its data (same paper); `IGNORED` and `new_layer` [@devlin2019bert]; `LayerNorm` [@ba2016layer].

Symbols: b batch, n positions, v words, e width of embeddings, d width of states. The paper's $D(x, t)$, the probability
that a word is original, is sigmoid(-logits[:, t]).

Differences from the paper:
    * Both losses are means, over the words that are hidden and over all that are no padding; the paper's equations
      have sums. So it is in the authors' code, and $\lambda$ = 50 belongs to the means.
    * The generator shares the vectors of segments and the norm of the embeddings, too, as in the authors' code. The
      paper names words and positions.
    * Between the discriminator's states and its weights w stands a layer with GELU, as in the authors' code; likewise
      a layer with GELU and a norm in the generator, and each word has a bias.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, gelu, linear

from papercode.attention.layer_norm import LayerNorm
from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert_pretraining import IGNORED, new_layer
from papercode.encoders.electra import ELECTRA
from papercode.encoders.electra_data import put_back, sample

SHARED = ("words", "positions", "segments", "norm")
"""What generator and discriminator have in common."""


class GeneratorHead(nn.Module):
    """Logits of the word at a position: BERT's head, with a map from the states to the width of the embeddings.

    Args:
        encoder: Whose states it reads.
    """

    def __init__(self, encoder: ELECTRA):
        super().__init__()
        n_tokens, e = encoder.words.weight.shape
        self.transform, self.norm = new_layer(encoder, e), LayerNorm(e, encoder.norm.eps).to(encoder.words.weight)
        self.bias = nn.Parameter(torch.zeros(n_tokens).to(encoder.words.weight))

    def forward(self, states: Float[Tensor, "*batch d"], words: Float[Tensor, "v e"]) -> Float[Tensor, "*batch v"]:
        """`words` is the encoder's table, given with each call."""
        return linear(self.norm(gelu(self.transform(states))), words, self.bias)


class ELECTRAGenerator(Pretrained, layout="electra"):
    """Names hidden words, as BERT does, and is small.

    Args:
        encoder: A fourth to a half as wide as the discriminator (section 3.2).
    """

    def __init__(self, encoder: ELECTRA):
        super().__init__()
        self.encoder, self.mlm = encoder, GeneratorHead(encoder)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n v"]:
        """Logits of the word at each position; arguments as for [`BERT`][papercode.encoders.bert.BERT.forward]."""
        return self.mlm(self.encoder(tokens, segments, keep), self.encoder.words.weight)


class ELECTRADiscriminator(Pretrained, layout="electra"):
    """Tells of each word whether it was replaced.

    Args:
        encoder: What is kept after training.
    """

    def __init__(self, encoder: ELECTRA):
        super().__init__()
        self.encoder, self.transform, self.verdict = encoder, new_layer(encoder, encoder.d_model), new_layer(encoder, 1)

    def forward(
        self,
        tokens: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n"]:
        """A logit a position, of `it was replaced`; arguments as for [`BERT`][papercode.encoders.bert.BERT.forward]."""
        return self.verdict(gelu(self.transform(self.encoder(tokens, segments, keep))))[..., 0]

    def loss(
        self,
        tokens: Int[Tensor, "b n"],
        replaced: Bool[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy, the mean over all positions that are no padding."""
        logits = self(tokens, segments, keep)
        seen = torch.ones_like(replaced) if keep is None else keep
        return binary_cross_entropy_with_logits(logits[seen], replaced[seen].to(logits.dtype))


class Losses(NamedTuple):
    """Of one batch.

    Attributes:
        mlm: The generator's, the mean over hidden words (0 if there is none).
        rtd: The discriminator's, the mean over all words.
    """

    mlm: Float[Tensor, ""]
    rtd: Float[Tensor, ""]


class ReplacedTokenDetection(nn.Module):
    r"""Both models together, as ELECTRA is trained: the sum of the generator's loss and $\lambda$ times the other.

    Args:
        generator: Its embeddings become the discriminator's.
        discriminator: What is kept.
        weight: The paper's $\lambda$.

    Raises:
        ValueError: If their embeddings are not of one shape.
    """

    def __init__(self, generator: ELECTRAGenerator, discriminator: ELECTRADiscriminator, weight: float = 50.0):
        super().__init__()
        for name in SHARED[:3]:
            shapes = [tuple(getattr(model.encoder, name).weight.shape) for model in (generator, discriminator)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"generator's {name} are {shapes[0]} and discriminator's {shapes[1]}; they are shared")
        for name in SHARED:
            setattr(generator.encoder, name, getattr(discriminator.encoder, name))
        self.generator, self.discriminator, self.weight = generator, discriminator, weight

    def losses(
        self,
        hidden: Int[Tensor, "b n"],
        targets: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
        draws: torch.Generator | None = None,
    ) -> Losses:
        """Both losses; the discriminator reads what the generator has just sampled.

        Args:
            hidden: After [`hide`][papercode.encoders.electra_data.hide].
            targets: The words that were hidden, IGNORED elsewhere.
            segments: As for the encoder.
            keep: As for the encoder.
            draws: For the samples.
        """
        asked = targets != IGNORED
        states, words = self.generator.encoder(hidden, segments, keep), self.generator.encoder.words.weight
        if not asked.any():
            return Losses(states.sum() * 0.0, self.discriminator.loss(hidden, asked, segments, keep))
        logits = self.generator.mlm(states[asked], words)
        corrupt, replaced = put_back(hidden, targets, sample(logits, draws))
        mlm = cross_entropy(logits, targets[asked])
        return Losses(mlm, self.discriminator.loss(corrupt, replaced, segments, keep))

    def loss(
        self,
        hidden: Int[Tensor, "b n"],
        targets: Int[Tensor, "b n"],
        segments: Int[Tensor, "b n"] | None = None,
        keep: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, ""]:
        r"""$\mathcal{L}_{MLM} + \lambda \mathcal{L}_{Disc}$; arguments as for `losses`."""
        mlm, rtd = self.losses(hidden, targets, segments, keep)
        return mlm + self.weight * rtd
