"""FlexAttention as an attend: what it compiles to, what it refuses, what it keeps."""

import subprocess
import sys

import pytest
import torch

from papercode.attention import flex as module
from papercode.attention.flex import flex
from papercode.attention.masks import Band

COMPILED = """
import torch
from papercode.attention.flex import flex
from papercode.attention.masks import Band
from papercode.attention.transformer import attention, causal_mask

device = "cuda" if torch.cuda.is_available() else "cpu"
q, k, v = (torch.randn(2, g, m, 16, device=device) for g, m in [(4, 150), (2, 170), (2, 170)])
keep = torch.arange(170, device=device) < torch.tensor([[170], [90]], device=device)
bias = torch.randn(1, 4, 150, 170, device=device)
with torch.no_grad():
    for mask, added in [(None, None), (causal_mask, None), (Band(20, 5), bias), (Band(right=0, keep=keep), None)]:
        found, expected = (f(q, k, v, mask=mask, bias=added, scale=0.3) for f in (flex, attention))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
print("equal")
"""


@pytest.mark.slow
def test_what_it_compiles_to_means_the_same():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True)
    assert done.stdout == "equal\n", done.stderr[-2000:]


def test_it_has_no_dropout():
    q = torch.randn(1, 1, 5, 16)
    with pytest.raises(ValueError, match=r"dropout=0\.1, but FlexAttention has none: use sdpa or attention instead"):
        flex(q, q, q, dropout=0.1)


def test_on_the_cpu_it_has_no_gradient():
    q = torch.randn(1, 1, 5, 16, requires_grad=True)
    with pytest.raises(ValueError, match="a gradient is wanted, but FlexAttention has none on the CPU: use sdpa"):
        flex(q, q, q)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_blocks_of_a_band_are_found_once(monkeypatch):
    asked, real = [], module._blocks
    monkeypatch.setattr(module, "_blocks", lambda *args: asked.append(args) or real(*args))
    q = torch.randn(1, 1, 301, 16)
    with torch.compiler.set_stance("force_eager"):
        for _ in range(3):
            flex(q, q, q, mask=Band(7, 0))
            flex(q, q, q)  # all blocks: no mask at all
    assert len(asked) == 1
