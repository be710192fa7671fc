"""One seed, one thread, shapes enforced, a word where a GPU is missing, and a record of what was held against what."""

import csv
import os
import pkgutil
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

import papercode
from helpers import assert_same

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

torch.set_num_threads(1)  # here, since fixtures of a module come before those of a test


@pytest.fixture(autouse=True)
def reproducible():
    dtype = torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(dtype)


PARITY = pytest.StashKey[list[dict[str, str]]]()


def pytest_addoption(parser):
    parser.addoption("--parity", metavar="FILE", type=Path, help="write what was held against which reference to FILE")


def pytest_configure(config):
    config.stash[PARITY] = []


@pytest.fixture
def parity(request):
    """parity(model, reference, configuration, ours, theirs): asserts equality, and notes it for the site's page."""

    def hold(model, reference, configuration, ours, theirs, tolerance=1e-7):
        ours, theirs = ([x] if isinstance(x, torch.Tensor) else list(x) for x in (ours, theirs))
        assert len(ours) == len(theirs) > 0
        for mine, other in zip(ours, theirs):
            assert_same(mine, other, tolerance)
        error = max((mine - other).abs().max().item() for mine, other in zip(ours, theirs))
        row = {"model": model, "reference": reference, "configuration": configuration, "error": f"{error:.1e}"}
        request.config.stash[PARITY].append(row | {"test": request.node.nodeid.partition("::")[0]})

    return hold


def pytest_sessionfinish(session, exitstatus):
    file, rows = session.config.getoption("--parity"), session.config.stash[PARITY]
    if file and exitstatus == pytest.ExitCode.OK:
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, ["model", "reference", "configuration", "error", "test"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                sorted(rows, key=lambda row: [row[name] for name in ("model", "reference", "configuration")])
            )


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
