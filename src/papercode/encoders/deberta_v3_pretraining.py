r"""How DeBERTaV3 is trained [@he2023debertav3, section 3]: replaced words, and one table of words without a quarrel.

Generator and discriminator may share their word vectors E in three ways. ES: there is one table, and both losses move
it. NES: there are two. GDES: the discriminator reads $E_D = \mathrm{sg}(E_G) + E_\Delta$, where sg stops gradients and
$E_\Delta$ starts at zero: it sees all that the generator learns about words, and only $E_\Delta$ hears its complaints.

Imports: `sample`, `put_back` and `Losses` are ELECTRA's, whose training this is [@clark2020electra]; `IGNORED` and
`initialise` are BERT's [@devlin2019bert]; `LayerNorm` [@ba2016layer]; the generator names words as DeBERTa does
[@he2021deberta]; the encoder is this paper's.

Symbols: b batch, n positions, d width. The paper's $E_G$ = shared, $E_\Delta$ = delta, $\lambda$ = weight.

Differences from the paper:
    * Both losses are of the same weights, and one step serves both. The paper's generator takes its step first, and
      the discriminator then reads the moved $E_G$.
    * A word is judged by a norm of its state plus the first one, a layer with GELU and a linear map, as in the authors'
      code; the paper does not describe the head.
    * $\lambda$ is ELECTRA's 50 unless told otherwise; the authors' code has 10.
    * Only words are shared. In the authors' code the generator's table of positions is shared, too, but the
      discriminator never reads it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, embedding, gelu

from papercode.attention.layer_norm import LayerNorm
from papercode.checkpoints.pretrained import Pretrained
from papercode.encoders.bert import initialise
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.deberta import DeBERTa
from papercode.encoders.deberta_pretraining import DeBERTaForMaskedLM
from papercode.encoders.deberta_v3 import DeBERTaV3
from papercode.encoders.electra_data import put_back, sample
from papercode.encoders.electra_pretraining import Losses


class DeltaEmbedding(nn.Module):
    r"""$E_D = \mathrm{sg}(E_G) + E_\Delta$ (section 3.3), in place of an `nn.Embedding`.

    Args:
        shared: $E_G$; its values are read, and it gets no gradient from here.
    """

    def __init__(self, shared: nn.Embedding):
        super().__init__()
        self.shared, self.delta = shared, nn.Parameter(torch.zeros_like(shared.weight))

    @property
    def weight(self) -> Float[Tensor, "n_tokens d"]:
        """$E_D$, whole."""
        return self.shared.weight.detach() + self.delta

    @property
    def embedding_dim(self) -> int:
        """d."""
        return self.shared.embedding_dim

    def forward(self, tokens: Int[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Rows of $E_D$; the others are not added up."""
        return embedding(tokens, self.shared.weight.detach()) + embedding(tokens, self.delta)

    @torch.no_grad()
    def merged(self) -> nn.Embedding:
        """An embedding of its own with the values of $E_D$: what is kept after training."""
        return nn.Embedding.from_pretrained(self.weight.clone(), freeze=False)


def one_table(generator: DeBERTa, discriminator: DeBERTa) -> None:
    """ES, as in ELECTRA: both models read and move the generator's word vectors."""
    discriminator.words = generator.words


def two_tables(generator: DeBERTa, discriminator: DeBERTa) -> None:
    """NES: each model keeps its own."""


def table_and_change(generator: DeBERTa, discriminator: DeBERTa) -> None:
    """GDES: the discriminator reads the generator's word vectors, and moves a difference to them."""
    discriminator.words = DeltaEmbedding(generator.words)  # type: ignore[assignment]


class DeBERTaV3Discriminator(Pretrained, layout="deberta_v3"):
    """Tells of each word whether it was replaced.

    Args:
        encoder: What is kept after training.
    """

    def __init__(self, encoder: DeBERTaV3):
        super().__init__()
        d = encoder.words.embedding_dim
        self.encoder, self.norm = encoder, LayerNorm(d, encoder.norm.eps)
        self.transform, self.verdict = nn.Linear(d, d), nn.Linear(d, 1)
        for layer in (self.transform, self.verdict):
            initialise(layer)
        self.to(encoder.words.weight)

    def forward(self, tokens: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n"]:
        """A logit a position, of `it was replaced`."""
        states = self.encoder(tokens, keep)
        return self.verdict(gelu(self.transform(self.norm(states + states[:, :1]))))[..., 0]

    def loss(
        self, tokens: Int[Tensor, "b n"], replaced: Bool[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, ""]:
        """Binary cross-entropy, the mean over all positions that are no padding."""
        logits = self(tokens, keep)
        seen = torch.ones_like(replaced) if keep is None else keep
        return binary_cross_entropy_with_logits(logits[seen], replaced[seen].to(logits.dtype))


class DeBERTaV3ForPreTraining(nn.Module):
    r"""Both models together: $L_{MLM} + \lambda L_{RTD}$.

    Args:
        generator: As wide as the discriminator, and half as deep (section 3).
        discriminator: What is kept.
        share: One of `one_table`, `two_tables`, `table_and_change`; called with the two encoders.
        weight: $\lambda$.

    Raises:
        ValueError: If their word vectors are not of one shape.
    """

    def __init__(
        self,
        generator: DeBERTaForMaskedLM,
        discriminator: DeBERTaV3Discriminator,
        share: Callable[[DeBERTa, DeBERTa], None] = table_and_change,
        weight: float = 50.0,
    ):
        super().__init__()
        mine, other = (tuple(model.encoder.words.weight.shape) for model in (generator, discriminator))
        if mine != other:
            raise ValueError(f"generator's words are {mine} and discriminator's {other}; they may be shared")
        share(generator.encoder, discriminator.encoder)
        self.generator, self.discriminator, self.weight = generator, discriminator, weight

    def losses(
        self,
        hidden: Int[Tensor, "b n"],
        targets: Int[Tensor, "b n"],
        keep: Bool[Tensor, "b n"] | None = None,
        draws: torch.Generator | None = None,
    ) -> Losses:
        """Both losses; the discriminator reads what the generator has just sampled.

        Args:
            hidden: After [`hide`][papercode.encoders.electra_data.hide].
            targets: The words that were hidden, IGNORED elsewhere.
            keep: False at padding.
            draws: For the samples.
        """
        asked, generator = targets != IGNORED, self.generator
        if not asked.any():  # nothing to sample; the discriminator learns from every word all the same
            nothing = generator.encoder.words.weight.sum() * 0.0
            return Losses(nothing, self.discriminator.loss(hidden, asked, keep))
        logits = generator.mlm(generator.states(hidden, keep)[asked], generator.encoder.words.weight)
        corrupt, replaced = put_back(hidden, targets, sample(logits, draws))
        return Losses(cross_entropy(logits, targets[asked]), self.discriminator.loss(corrupt, replaced, keep))

    def loss(
        self, hidden: Int[Tensor, "b n"], targets: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, ""]:
        r"""$L_{MLM} + \lambda L_{RTD}$; arguments as for `losses`."""
        mlm, rtd = self.losses(hidden, targets, keep)
        return mlm + self.weight * rtd
