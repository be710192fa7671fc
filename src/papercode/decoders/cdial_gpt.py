r"""CDial-GPT [@wang2020large]: a GPT for Chinese dialogue that is told at every token who speaks.

Imports: `GPT` is the language model [@radford2018improving]; `Turns`, `IGNORE` are DialoGPT's
[@zhang2020dialogpt]; the causal mask is the Transformer's [@vaswani2017attention].

Symbols: b dialogues, K turns each, n tokens of the longest, d width. A row reads
`[CLS] [speaker1] T_1 [speaker2] T_2 [speaker1] T_3 …`, and the vector of a token is the sum of three: its word, its
position, and its speaker. The speakers are words, too: their vectors stand in the table of words.

Differences from the paper:
    * A batch is padded with `[PAD]` for speaker as well, as in the authors' code; nobody looks there.
    * `all_responses` has no counterpart in the paper, which makes K - 1 samples of a dialogue: it is one pass with the
      same losses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from papercode.attention.arguments import Mask
from papercode.attention.transformer import causal_mask
from papercode.decoders.dialogpt import IGNORE, Turns
from papercode.decoders.gpt import GPT


class Marks(NamedTuple):
    """The special tokens of a vocabulary.

    Attributes:
        start: `[CLS]`, at the head of every row; it is its own speaker.
        end: `[SEP]`, what a reply ends with.
        speakers: `[speaker1]` and `[speaker2]`; whoever begins is the first.
        pad: `[PAD]`.
    """

    start: int
    end: int
    speakers: tuple[int, int]
    pad: int = 0


class DialogueInput(NamedTuple):
    """A batch for [`CDialGPT`][papercode.decoders.cdial_gpt.CDialGPT].

    Attributes:
        tokens: Words and marks (b n).
        speakers: For each token the word of who says it (b n).
        targets: What comes after each token (b n), or IGNORE.
    """

    tokens: Int[Tensor, "b n"]
    speakers: Int[Tensor, "b n"]
    targets: Int[Tensor, "b n"]


def clipped(turns: Turns, max_history: int = 15) -> Turns:
    """The last 2 max_history turns, reply included: what the authors' code keeps of a dialogue.

    Raises:
        ValueError: If max_history is less than 1.
    """
    if max_history < 1:
        raise ValueError(f"max_history={max_history} must be at least 1")
    return turns[-2 * max_history :]


def response_samples(dialogues: Sequence[Turns], marks: Marks) -> DialogueInput:
    """The last turn of each dialogue is learned, with `[SEP]` after it; a sample of the paper.

    Multi-turn dialogues are expanded first: [`histories`][papercode.decoders.dialogpt.histories] makes K - 1 samples.

    Raises:
        ValueError: If a dialogue has less than two turns.
    """
    return _batch(dialogues, marks, lambda number, n_turns: number == n_turns - 1)


def all_responses(dialogues: Sequence[Turns], marks: Marks) -> DialogueInput:
    """Every turn from the second on is learned, in one row a dialogue.

    After the last word of an inner turn the row goes on with the other speaker's mark, but the target there is `[SEP]`:
    what is learned need not be what is read next. So the sum of the losses is that of the K - 1 samples.

    Raises:
        ValueError: If a dialogue has less than two turns.
    """
    return _batch(dialogues, marks, lambda number, n_turns: number > 0)


def prompt(history: Turns, marks: Marks) -> tuple[Int[Tensor, "1 n"], Int[Tensor, "1 n"]]:
    """Tokens and speakers up to the mark of whoever is to reply; what the model writes next is the reply."""
    tokens, speakers, _ = _row([*history, []], marks, lambda number, n_turns: False)
    return torch.tensor([tokens]), torch.tensor([speakers])


class CDialGPT(GPT, layout="cdial_gpt"):
    """The language model; the defaults are those of the released models, with 13,088 words and 513 positions.

    Arguments are GPT's.
    """

    def __init__(self, n_tokens: int = 13_088, *, n_positions: int = 513, **kwargs):
        super().__init__(n_tokens, n_positions=n_positions, **kwargs)

    def embed(  # type: ignore[override]
        self, tokens: Int[Tensor, "b n"], speakers: Int[Tensor, "b m"], start: int = 0
    ) -> Float[Tensor, "b n d"]:
        """Word, position and speaker, added, with dropout; the first token stands at position `start`.

        Raises:
            ValueError: If the text is longer than n_positions, speakers are not as many as tokens, or start is below 0.
        """
        if start < 0:
            raise ValueError(f"start={start} must be at least 0")
        if speakers.shape != tokens.shape:
            raise ValueError(f"speakers is {tuple(speakers.shape)}, but tokens {tuple(tokens.shape)}: one for each")
        end = start + tokens.shape[1]
        if end > self.positions.num_embeddings:
            raise ValueError(f"tokens reach position {end}, but n_positions={self.positions.num_embeddings}")
        return self.dropout(self.words(tokens) + self.positions.weight[start:end] + self.words(speakers))

    def encode(  # type: ignore[override]
        self, tokens: Int[Tensor, "b n"], speakers: Int[Tensor, "b n"], mask: Mask = causal_mask, start: int = 0
    ) -> Float[Tensor, "b n d"]:
        """One vector a token, each aware of those before it."""
        x = self.embed(tokens, speakers, start)
        for layer in self.layers:
            x = layer(x, mask=mask)
        return x

    def forward(  # type: ignore[override]
        self, tokens: Int[Tensor, "b n"], speakers: Int[Tensor, "b n"], mask: Mask = causal_mask, start: int = 0
    ) -> Float[Tensor, "b n n_tokens"]:
        """Logits of the token after each token: words only, who speaks next is not predicted."""
        return self.logits(self.encode(tokens, speakers, mask, start))


def response_losses(model: CDialGPT, batch: DialogueInput) -> Float[Tensor, "b n"]:
    """Minus the log-probability of every target, 0 where nothing is learned; the mean is by `targets != IGNORE`."""
    logits = model(batch.tokens, batch.speakers)
    return nn.functional.cross_entropy(logits.mT, batch.targets, ignore_index=IGNORE, reduction="none")


def _row(turns: Turns, marks: Marks, learned) -> tuple[list[int], list[int], list[int]]:
    tokens, speakers, targets = [marks.start], [marks.start], [IGNORE]
    for number, turn in enumerate(turns):
        speaker, wanted = marks.speakers[number % 2], learned(number, len(turns))
        tokens += [speaker, *turn]
        speakers += [speaker] * (len(turn) + 1)
        targets += [*turn, marks.end] if wanted else [IGNORE] * (len(turn) + 1)
    return tokens, speakers, targets


def _batch(dialogues: Sequence[Turns], marks: Marks, learned) -> DialogueInput:
    for number, turns in enumerate(dialogues):
        if len(turns) < 2:
            raise ValueError(f"dialogue {number} has {len(turns)} turns, but a reply needs one before it: at least 2")
    rows = [_row(turns, marks, learned) for turns in dialogues]
    longest = max((len(tokens) for tokens, _, _ in rows), default=0)
    filled = (
        [row[k] + [fill] * (longest - len(row[k])) for row in rows]
        for k, fill in enumerate((marks.pad, marks.pad, IGNORE))
    )
    return DialogueInput(*(torch.tensor(rows) for rows in filled))
