"""One seed, one thread, shapes enforced, and a clear word where a GPU is missing."""

import os
import pkgutil

import pytest
import torch
from jaxtyping import install_import_hook

import papercode

# Triton's kernels run in its interpreter where there is no GPU; it asks when they are defined
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Shapes in the signatures of the papers' modules are checked while testing; the site engine has none, and the
# language of Triton's kernels is not Python's.
KERNELS = "papercode.attention.flash_kernels"
MODELS = [
    module.name
    for module in pkgutil.walk_packages(papercode.__path__, "papercode.")
    if not module.ispkg and not module.name.startswith("papercode.site") and module.name != KERNELS
]
install_import_hook(MODELS, "helpers.typechecked")


@pytest.fixture(autouse=True)
def reproducible():
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
