"""The kernels can be compiled for the GPU they are meant for, also where there is none."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

SCRIPT = """
import json
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from papercode.attention import flash_kernels as kernels

FULL = dict(LEFT=True, RIGHT=True, SEEN=2, BIAS=True, DROPOUT=True)
CAUSAL = dict(LEFT=False, RIGHT=True, SEEN=0, BIAS=False, DROPOUT=False)


def ptx(kernel, dtype, **constants):
    def kind(name):
        if name in constants:
            return "constexpr"
        if name in ("Lse", "Delta", "D_bias"):
            return "*fp32"
        if name in ("Seen", "Seed"):
            return {"Seen": "*u8", "Seed": "*i64"}[name]
        return f"*{dtype}" if name[0].isupper() else "fp32" if name in ("scale", "dropout") else "i32"

    names = kernel.arg_names
    signature = {name: kind(name) for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    even = {name for name in names if name[0].isupper() or name in "de"} - set(constants)
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in even}
    source = ASTSource(kernel, signature, values, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 2})
    return compiled.asm["ptx"]


SIZES = dict(BLOCK_D=64, BLOCK_E=64, BLOCK_M=64, BLOCK_N=64)
mask, dtype = (FULL, "fp32") if sys.argv[1] == "full" else (CAUSAL, "bf16")
found = {
    "forward": ptx(kernels.forward, dtype, **mask, **SIZES),
    "backward_queries": ptx(kernels.backward_queries, dtype, D_BIAS=mask is FULL, **mask, **SIZES),
    "backward_keys": ptx(kernels.backward_keys, dtype, **mask, **SIZES),
}
print(json.dumps({name: [text.count("wgmma.mma_async"), text.count("tf32")] for name, text in found.items()}))
"""


@pytest.mark.parametrize("kind", ["causal", pytest.param("full", marks=pytest.mark.slow)])
def test_they_compile_for_hopper(kind):
    """In half precision to the tensor cores' asynchronous products; in single precision no bits are dropped."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for products, dropped in json.loads(done.stdout.splitlines()[-1]).values():
        assert dropped == 0
        assert (products > 0) is (kind == "causal")
