r"""GPT on a task [@radford2018improving, sections 3.2 and 3.3]: every task becomes text between three new tokens.

Imports: `GPT` is the model, `initialise` its initial weights, `language_loss` its objective (same paper).

Symbols: b examples, s texts of an example, n positions, c classes or choices, d width. The paper's $h_l^m$ = the state
at the extract token, $W_y$ = classifier.weight, $\lambda$ = weight, $L_2$ and $L_3$ = minus the losses here.

Differences from the paper:
    * The new layer has a bias, as in the authors' code; the equation has none.
    * Losses are means over examples and over tokens, the paper's objectives are sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from papercode.decoders.gpt import GPT, initialise
from papercode.decoders.gpt_training import language_loss

Tokens = Sequence[int]


@dataclass(frozen=True)
class TaskTokens:
    """The three tokens that no text of pre-training had, and the four forms of input made with them (Figure 1).

    Args:
        start: Begins every text.
        delimiter: Stands between two parts.
        extract: Ends every text; the state above it is what the task reads.
    """

    start: int
    delimiter: int
    extract: int

    def classification(self, text: Tokens) -> list[list[int]]:
        """One text."""
        return [self._joined(text)]

    def entailment(self, premise: Tokens, hypothesis: Tokens) -> list[list[int]]:
        """One text of two parts, in their order."""
        return [self._joined(premise, hypothesis)]

    def similarity(self, one: Tokens, other: Tokens) -> list[list[int]]:
        """Two texts, one for each order: neither sentence comes first by nature. Their states are added."""
        return [self._joined(one, other), self._joined(other, one)]

    def choice(self, context: Tokens, answers: Sequence[Tokens]) -> list[list[int]]:
        """A text for each answer; context is the document and the question behind it."""
        return [self._joined(context, answer) for answer in answers]

    def _joined(self, *parts: Tokens) -> list[int]:
        text = [self.start, *parts[0]]
        for part in parts[1:]:
            text += [self.delimiter, *part]
        return [*text, self.extract]


def batched(examples: Sequence[Sequence[Tokens]], padding: int = 0) -> Int[Tensor, "b s n"]:
    """Examples of equally many texts as one tensor, padded on the right.

    No mask is needed: no token sees a later one, and what stands behind the extract token is not read.

    Raises:
        ValueError: If there is no example, or examples have different numbers of texts.
    """
    if len({len(texts) for texts in examples}) != 1:
        raise ValueError(
            f"examples have {sorted({len(texts) for texts in examples})} texts, they must have equally many"
        )
    longest = max(len(text) for texts in examples for text in texts)
    return torch.tensor([[[*text, *[padding] * (longest - len(text))] for text in texts] for texts in examples])


def add_task_tokens(decoder: GPT) -> TaskTokens:
    """Lengthens the table of words by three rows, drawn as the first ones were, and returns their numbers."""
    old = decoder.words
    decoder.words = nn.Embedding(old.num_embeddings + 3, old.embedding_dim).to(old.weight)
    initialise(decoder.words)
    with torch.no_grad():
        decoder.words.weight[:-3] = old.weight
    return TaskTokens(*range(old.num_embeddings, old.num_embeddings + 3))


class GPTForClasses(nn.Module):
    """A class for an example of one text (classification, entailment) or of two (similarity): `softmax(h W_y)`.

    Args:
        decoder: As pre-trained, with task tokens.
        tokens: Its task tokens.
        n_classes: 1 gives a number, for regression.
        dropout: Before the new layer.

    Raises:
        ValueError: If n_classes is less than 1.
    """

    def __init__(self, decoder: GPT, tokens: TaskTokens, n_classes: int, dropout: float = 0.1):
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"n_classes={n_classes} must be at least 1")
        self.decoder, self.tokens, self.dropout = decoder, tokens, nn.Dropout(dropout)
        self.classifier = nn.Linear(decoder.words.embedding_dim, n_classes).to(decoder.words.weight)
        initialise(self.classifier)

    def extracted(self, tokens: Int[Tensor, "b s n"]) -> tuple[Float[Tensor, "b s d"], Float[Tensor, ""]]:
        """The states at the extract tokens; and the loss of the texts as language, from the same pass.

        Raises:
            ValueError: If a text does not have exactly one extract token.
        """
        texts = tokens.flatten(0, 1)
        places = texts == self.tokens.extract
        if not (places.sum(1) == 1).all():
            raise ValueError(f"each text must have one extract token ({self.tokens.extract}), at its end")
        last = places.long().argmax(1)
        states = self.decoder.encode(texts)
        keep: Bool[Tensor, "t n"] = torch.arange(texts.shape[1], device=texts.device) <= last[:, None]
        loss = language_loss(self.decoder.logits(states), texts, keep)
        return states[torch.arange(len(last)), last].view(*tokens.shape[:2], -1), loss

    def classify(self, states: Float[Tensor, "b s d"]) -> Float[Tensor, "b c"]:
        """Logits of the classes: the texts of an example are added before the new layer."""
        return self.classifier(self.dropout(states.sum(1)))

    def forward(self, tokens: Int[Tensor, "b s n"]) -> Float[Tensor, "b c"]:
        """Logits, from texts as [`batched`][papercode.decoders.gpt_tasks.batched] makes them."""
        return self.classify(self.extracted(tokens)[0])


class GPTForChoices(GPTForClasses):
    """Which of c answers: each is read with its context, gets one number, and a softmax runs over the answers.

    Args:
        decoder: As pre-trained, with task tokens.
        tokens: Its task tokens.
        dropout: Before the new layer.
    """

    def __init__(self, decoder: GPT, tokens: TaskTokens, dropout: float = 0.1):
        super().__init__(decoder, tokens, 1, dropout)

    def classify(self, states: Float[Tensor, "b s d"]) -> Float[Tensor, "b s"]:
        """Logits of the choices, of which there may be any number."""
        return self.classifier(self.dropout(states))[..., 0]


def joint_loss(
    model: GPTForClasses, tokens: Int[Tensor, "b s n"], labels: Int[Tensor, " b"], weight: float = 0.5
) -> Float[Tensor, ""]:
    r"""$-L_3 = -(L_2 + \lambda L_1)$: of the labels, and of the texts themselves (Eq. 4 and 5).

    Args:
        model: The one or the other.
        tokens: Texts of each example.
        labels: The true classes or choices.
        weight: $\lambda$, of the language; 0 leaves the labels alone.

    Raises:
        ValueError: If weight is negative.
    """
    if weight < 0:
        raise ValueError(f"weight={weight} must be at least 0")
    states, language = model.extracted(tokens)
    return nn.functional.cross_entropy(model.classify(states), labels) + weight * language
