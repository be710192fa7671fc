"""Times our recurrent loop, and the path through torch's kernels, against torch.nn's LSTM and GRU.

python benchmarks/recurrent.py                  forward passes and training steps
python benchmarks/recurrent.py --only "LSTM"    some of it

All providers have the same weights. "textbook" calls the cell once a step, so that the product with the inputs is done
step by step; our loop does it for all steps at once.

torch.nn's LSTM runs on oneDNN, all other matrix products of torch on MKL. MKL does without AVX-512 on processors that
are not Intel's, oneDNN does not: there a large part of the ratio is that of two libraries. With ONEDNN_MAX_CPU_ISA=AVX2
in the environment both have the same instructions; the rows then say so.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial

import torch
from harness import Case, run
from torch import Tensor, nn

from papercode.recurrent.fused import fused
from papercode.recurrent.gru import ResetAfterGRUCell
from papercode.recurrent.lstm import LSTMCell
from papercode.recurrent.unroll import Cell, unroll

ISA = os.environ.get("ONEDNN_MAX_CPU_ISA")
SIZES = ((32, 50, 256), (64, 100, 512), (1, 50, 256))  # sentences, steps, width


def copied(cell: Cell, peer: nn.RNNBase) -> nn.RNNBase:
    """The peer, with the cell's weights."""
    with torch.no_grad():
        for name, weight in zip(
            peer._flat_weights_names, (cell.input.weight, cell.hidden.weight, cell.input.bias, cell.hidden_bias())
        ):
            getattr(peer, name).copy_(weight)
    return peer


def textbook(cell: Cell, x: Tensor) -> tuple[Tensor]:
    return unroll(cell.__call__, x, cell.start(x))


def training(work: Callable[[Tensor], tuple], x: Tensor) -> Tensor:
    """A forward and a backward pass; the gradient of the inputs, which depends on everything before."""
    x.grad = None
    work(x)[0].square().mean().backward()
    return x.grad


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    for make, peer in ((LSTMCell, nn.LSTM), (ResetAfterGRUCell, nn.GRU)):
        for b, n, d in SIZES:
            torch.manual_seed(0)
            cell = make(d, d).to(arguments.device)
            providers = {
                "our loop": partial(unroll, cell),
                "fused": partial(fused, cell),
                f"torch.nn.{peer.__name__}": copied(cell, peer(d, d, batch_first=True).to(arguments.device)),
                "textbook loop": partial(textbook, cell),
            }
            x = torch.randn(b, n, d, device=arguments.device)
            name = f"{peer.__name__}{f', oneDNN held to {ISA}' if ISA else ''}"
            forward = {who: partial(lambda work, x: work(x)[0], work, x) for who, work in providers.items()}
            yield Case(f"{name}, forward", f"{b} x {n} x {d}", forward, inference=True)
            x = x.clone().requires_grad_()
            steps = {who: partial(training, work, x) for who, work in providers.items()}
            yield Case(f"{name}, forward and backward", f"{b} x {n} x {d}", steps)


if __name__ == "__main__":
    run("recurrent", cases, __doc__)
