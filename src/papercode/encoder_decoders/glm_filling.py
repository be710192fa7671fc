r"""Using GLM: writing what belongs into the blanks, and classifying by what fits best [@du2022glm].

Imports: `KVCache` keeps keys and values, `wrapped` puts it into the model [@vaswani2017attention].

Symbols: b batch, n positions, r hypotheses, c classes. The paper's $c(x)$ is a pattern, here any part A with one mask
token; its $v(y)$ a verbaliser, here the tokens of class y.

Differences from the paper:
    * A verbaliser of several tokens has the product of their probabilities; whether the end token counts is an
      argument, for the paper does not say.
    * Several blanks are filled from left to right unless an order is given.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from papercode.attention.kv_cache import KVCache
from papercode.attention.wrapping import wrapped
from papercode.decoding import greedy_search
from papercode.encoder_decoders.glm_corruption import Blanks, assemble, collate


@contextmanager
def filling_steps(model: nn.Module, head: Blanks) -> Iterator[Callable[[Tensor, Tensor], Tensor]]:
    """A step for [`papercode.decoding`][papercode.decoding] that writes on from the last token of `head`.

    The prompt of the search is `head.tokens[None]`. Part A and the blanks filled so far go through the model once; then
    each step feeds the new tokens alone.

    Args:
        model: A [`GLM`][papercode.encoder_decoders.glm.GLM] in evaluation mode.
        head: Part A and part B up to a start token, of one text.
    """
    done = 0
    with wrapped(model, KVCache) as caches:

        def step(tokens: Tensor, parents: Tensor) -> Tensor:
            nonlocal done
            for cache in caches.values():
                cache.reorder(parents)
            n = tokens.shape[1]
            more = torch.arange(1, n - len(head.tokens) + 1, device=tokens.device)
            positions = torch.cat([head.positions, head.positions[-1:].expand(len(more))])
            inner = torch.cat([head.inner, head.inner[-1] + more])
            rows = [x[done:].expand(len(tokens), -1) for x in (positions, inner)]
            logits = model(tokens[:, done:], *rows, int(head.context))
            done = n
            return logits[:, -1]

        yield step


def fill(
    model: nn.Module,
    part_a: Sequence[int],
    *,
    mask: int,
    start: int,
    end: int,
    max_new: int,
    order: Sequence[int] | None = None,
) -> list[list[int]]:
    """Fills the blanks of a text one after the other, each in the light of those before, with the likeliest tokens.

    Args:
        model: In evaluation mode.
        part_a: The text, with at least one mask token.
        mask: Which token is one.
        start: The token before an answer.
        end: The token that ends an answer.
        max_new: An answer has at most so many tokens.
        order: In which the blanks are filled, a permutation; from left to right unless given.

    Returns:
        The answers, without start and end, in the order of the text.

    Raises:
        ValueError: If part A has no mask token, or order is no permutation.
    """
    places = [i for i, token in enumerate(part_a) if token == mask]
    order = range(len(places)) if order is None else order
    if not places:
        raise ValueError(f"part_a has no mask token {mask}")
    if sorted(order) != list(range(len(places))):
        raise ValueError(f"order={list(order)} is no permutation of {len(places)} blanks")
    answers: list[tuple[int, list[int]]] = []
    for i in order:
        head = assemble(part_a, [*answers, (places[i], [])], start=start, end=end)
        with filling_steps(model, head) as step:
            written = greedy_search(step, head.tokens[None], end=end, max_new=max_new)[0, len(head.tokens) :].tolist()
        answers.append((places[i], written[: written.index(end)] if end in written else written))
    return [answer for _, answer in sorted(answers)]


def filled(part_a: Sequence[int], answers: Sequence[Sequence[int]], *, mask: int) -> list[int]:
    """The text with an answer in place of each mask token.

    Raises:
        ValueError: If there are not as many answers as mask tokens.
    """
    if len(answers) != list(part_a).count(mask):
        raise ValueError(f"there are {len(answers)} answers to {list(part_a).count(mask)} mask tokens")
    rest = iter(answers)
    return [token for one in part_a for token in (next(rest) if one == mask else [one])]


def cloze_scores(
    model: nn.Module,
    texts: Sequence[Sequence[int]],
    verbalizers: Sequence[Sequence[int]],
    *,
    mask: int,
    start: int,
    end: int,
    closed: bool = False,
) -> Float[Tensor, "b c"]:
    r"""$\log p(v(y) \mid c(x))$ of each text x and class y; its softmax over y is Eq. 3, and cross entropy trains it.

    Args:
        model: Scores all b times c pairs as one batch.
        texts: The filled-in patterns $c(x)$, each with exactly one mask token.
        verbalizers: The tokens $v(y)$ of each class, at least one.
        mask: Which token is the blank.
        start: The token before an answer.
        end: The token that ends an answer.
        closed: Whether the end token's probability counts, too.

    Raises:
        ValueError: If a text has no mask token or several, or a verbaliser is empty.
    """
    for text in texts:
        if list(text).count(mask) != 1:
            raise ValueError(f"a cloze text has one mask token {mask}, this one has {list(text).count(mask)}")
    if not verbalizers or not all(verbalizers):
        raise ValueError(f"verbalizers={[list(v) for v in verbalizers]} must hold at least one token each")
    pairs = [
        assemble(text, [(list(text).index(mask), answer)], start=start, end=end)
        for text in texts
        for answer in verbalizers
    ]
    batch = collate(pairs)
    log_p = model(*batch.inputs()).log_softmax(-1)
    counted = batch.targets >= 0
    if not closed:
        last = torch.tensor([len(pair.tokens) - 1 for pair in pairs])
        counted[torch.arange(len(pairs)), last] = False
    picked = log_p.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    return picked.where(counted, 0.0).sum(-1).view(len(texts), len(verbalizers))
