"""One seed, one thread, shapes enforced, and a clear word where a GPU is missing."""

import pkgutil

import pytest
import torch
from jaxtyping import install_import_hook

import papercode

# Shapes in the signatures of the papers' modules are checked while testing; the site engine has none.
MODELS = [f"papercode.{m.name}" for m in pkgutil.iter_modules(papercode.__path__) if m.name != "site"]
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
