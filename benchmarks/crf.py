"""Times a linear-chain CRF of 32 sentences of 50 words with 20 tags against pytorch-crf.

python benchmarks/crf.py                       the best paths, the loss, and the loss with its gradients
python benchmarks/crf.py --only Viterbi        some of it

Both have the same random parameters, in float32. The paths must be the same, the losses and gradients agree. "in logs"
is our own sum over all paths with a logsumexp at each step, for comparison. A turn is 10 calls. Once all sentences have
50 words, once 25 to 50.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Case, run
from torch import Tensor, nn
from torchcrf import CRF

from papercode.recurrent.crf import LinearChainCRF
from papercode.recurrent.crf_function import log_partition_by_logs
from papercode.recurrent.crf_paths import path_score

B, N, K = 32, 50, 20
CALLS = 10


def often(work: Callable[[], Tensor | list[Tensor]]) -> Callable[[], Tensor | list[Tensor]]:
    """The work, several times in a row; it returns the last result."""

    def repeated() -> Tensor | list[Tensor]:
        for _ in range(CALLS):
            out = work()
        return out

    return repeated


def parameters(crf: LinearChainCRF | CRF) -> list[nn.Parameter]:
    """Transitions, start, end."""
    if isinstance(crf, LinearChainCRF):
        return [crf.transitions, crf.start, crf.end]
    return [crf.transitions, crf.start_transitions, crf.end_transitions]


def loss(crf: LinearChainCRF, scores: Tensor, tags: Tensor, lengths: Tensor | None) -> Tensor:
    return crf(scores, tags, lengths)


def in_logs(crf: LinearChainCRF, scores: Tensor, tags: Tensor, lengths: Tensor | None) -> Tensor:
    potentials = crf.potentials(scores)
    return (log_partition_by_logs(*potentials, lengths) - path_score(potentials, tags, lengths)).float()


def reference(crf: CRF, scores: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
    return -crf(scores, tags, mask, reduction="none")


def best(crf: LinearChainCRF, scores: Tensor, lengths: Tensor | None) -> Tensor:
    return crf.decode(scores, lengths)[0]


def reference_best(crf: CRF, scores: Tensor, mask: Tensor) -> Tensor:
    return torch.tensor([path + [0] * (N - len(path)) for path in crf.decode(scores, mask)])


def gradients(
    work: Callable[..., Tensor], crf: LinearChainCRF | CRF, scores: Tensor, *others: Tensor | None
) -> list[Tensor]:
    """The sum of the losses, and what its backward pass leaves."""
    scores.grad = None
    crf.zero_grad()
    total = work(crf, scores, *others).sum()
    total.backward()
    return [total.detach(), *(p.grad for p in [scores, *parameters(crf)])]


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    torch.manual_seed(0)
    device = arguments.device
    ours, theirs = LinearChainCRF(K).to(device), CRF(K, batch_first=True).to(device)
    with torch.no_grad():
        for mine, other in zip(parameters(ours), parameters(theirs)):
            mine.copy_(other.normal_())
    scores, tags = torch.randn(B, N, K, device=device), torch.randint(K, (B, N), device=device)
    scores.requires_grad_()
    for shortest in (N, N // 2):
        lengths = torch.randint(shortest, N + 1, (B,), device=device)
        mask = torch.arange(N, device=device) < lengths[:, None]
        known = None if shortest == N else lengths
        shape = f"{B} x {N if known is None else f'{shortest} to {N}'}, {K} tags"
        viterbi = {
            "LinearChainCRF": often(partial(best, ours, scores, known)),
            "pytorch-crf": often(partial(reference_best, theirs, scores, mask)),
        }
        yield Case("Viterbi", shape, viterbi, tolerance=0.0, inference=True)
        losses = {
            "LinearChainCRF": (loss, ours, scores, tags, known),
            "in logs": (in_logs, ours, scores, tags, known),
            "pytorch-crf": (reference, theirs, scores, tags, mask),
        }
        yield Case("loss", shape, {name: often(partial(*work)) for name, work in losses.items()}, inference=True)
        both = {name: often(partial(gradients, *work)) for name, work in losses.items()}
        yield Case("loss, with gradients", shape, both)


if __name__ == "__main__":
    run("crf", cases, __doc__)
