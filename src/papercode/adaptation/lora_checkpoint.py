"""Adapters alone, saved and loaded [@hu2022lora, section 4.2: 35 MB in place of 350 GB].

Imports: `adapters` finds the adapted maps of a model (same paper).

One safetensors file holds `<module>.A` and `<module>.B` of each adapted map, and in its header the alpha of each,
without which the tensors are another function. Loading changes all or nothing, and no pickle is ever read.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from papercode.adaptation.lora_model import adapters
from papercode.checkpoints.files import compare, read_safetensors

_FORMAT = "papercode LoRA 1"  # in the header, so that another file is refused by name


def save_adapters(model: nn.Module, path: str | Path) -> None:
    """Writes A, B and alpha of every adapted map. Merged or not makes no difference.

    Args:
        model: A model with adapters.
        path: A .safetensors file.

    Raises:
        ValueError: If the model has no adapters.
    """
    layers = adapters(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no adapters to save: inject() first")
    tensors = {f"{n}.{k}": getattr(layer, k).detach().cpu().contiguous() for n, layer in layers.items() for k in "AB"}
    alphas = json.dumps({name: layer.alpha for name, layer in layers.items()})
    save_file(tensors, path, metadata={"format": _FORMAT, "alpha": alphas})


def load_adapters(model: nn.Module, path: str | Path) -> None:
    """Reads adapters into a model injected as it was when they were saved.

    Args:
        model: A model with the same adapters, unmerged.
        path: A file of `save_adapters`.

    Raises:
        ValueError: If the file is something else, one adapter is merged, or names, shapes or alphas do not agree; all
            of them are named, and nothing is loaded.
    """
    tensors, header = read_safetensors(path)
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} has format={header.get('format')!r}, not {_FORMAT!r}")
    layers = adapters(model)
    merged = [name for name, layer in layers.items() if layer.merged]
    if merged:
        raise ValueError(f"unmerge before loading: {', '.join(merged)} would keep the old update in the weight")
    expected = {f"{name}.{k}": getattr(layer, k) for name, layer in layers.items() for k in "AB"}
    alphas = json.loads(header["alpha"])
    other = [
        f"{name} (alpha={alphas[name]:g} in the file, alpha={layer.alpha:g} here)"
        for name, layer in layers.items()
        if alphas.get(name, layer.alpha) != layer.alpha
    ]
    compare(tensors, expected, path, other)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])
