r"""LoRA adapters in the folder layout of the peft library: adapter_config.json and adapter_model.safetensors.

Imports: the adapted maps, `inject` (same paper, @hu2022lora); not peft.

A tensor is `base_model.model.<module>.lora_A.weight` (and lora_B), for an embedding `….lora_embedding_A`. r and
lora_alpha hold for all modules but those that a regular expression in rank_pattern or alpha_pattern matches. A fused
projection of p adapted parts is written as the one pair of factors that it is, of rank p r and alpha p alpha, and comes
back as a `LoRALinear` of that rank.
"""

import json
import re
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_embedding import LoRAEmbedding
from papercode.adaptation.lora_model import adapters, inject, remove
from papercode.checkpoints.files import compare, read_safetensors

_PREFIX = "base_model.model."
_HANDLED = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules"} | {
    "rank_pattern", "alpha_pattern", "use_rslora",
}  # fmt: skip
_HARMLESS = {  # the layout of a weight is read off the module, not off fan_in_fan_out
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version",
    "fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config", "layers_pattern",
}  # fmt: skip
_INITIAL = {True, False, "gaussian", "orthogonal"}  # of init_lora_weights; others (PiSSA, OLoRA, …) change the base


def save_peft(model: nn.Module, folder: str | Path, *, base_model: str | None = None) -> None:
    """Writes the adapters as a folder that peft's PeftModel.from_pretrained reads.

    Args:
        model: A model with adapters.
        folder: Is made if need be.
        base_model: Name or path of the pretrained model, for peft to note.

    Raises:
        ValueError: If the model has no adapters, their dropouts differ, or one is used in several places: peft's
            folder has no room for that.
    """
    layers = adapters(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no adapters to save: inject() first")
    dropouts = {layer.dropout.p for layer in layers.values()}
    if len(dropouts) > 1:
        raise ValueError(f"adapters differ in dropout={sorted(dropouts)}; adapter_config.json holds one")
    held = [id(child) for module in model.modules() for child in module._modules.values()]
    shared = [name for name, layer in layers.items() if held.count(id(layer)) > 1]
    if shared:
        raise ValueError(f"{', '.join(shared)} is used under several names; peft would adapt it under the first only")
    tensors, ranks, alphas = {}, {}, {}
    for name, layer in layers.items():
        for key, factor in zip(_keys(name, layer), layer.factors(), strict=True):
            tensors[key] = factor.detach().cpu().contiguous()
        ranks[name] = len(layer.factors()[0])
        alphas[name] = layer.alpha * ranks[name] / layer.r
    r, alpha = mode(ranks.values()), mode(alphas.values())
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "r": r,
        "lora_alpha": _number(alpha),
        "lora_dropout": dropouts.pop(),
        "target_modules": _targets(model, list(layers)),
        "rank_pattern": {f"^{re.escape(n)}": rank for n, rank in ranks.items() if rank != r},
        "alpha_pattern": {f"^{re.escape(n)}": _number(a) for n, a in alphas.items() if a != alpha},
        "fan_in_fan_out": any(layer.transposed for layer in layers.values() if not isinstance(layer, LoRAEmbedding)),
        "bias": "none",
        "inference_mode": True,
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, Path(folder, "adapter_model.safetensors"), metadata={"format": "pt"})


def load_peft(model: nn.Module, folder: str | Path) -> list[str]:
    """Injects adapters as a folder of peft says, and reads their tensors. Everything or nothing.

    Args:
        model: A model without adapters.
        folder: With adapter_config.json and adapter_model.safetensors.

    Returns:
        The names of the adapted modules.

    Raises:
        ValueError: If the model has adapters, the configuration holds what is not LoRA as in the paper (named), or
            tensors are missing, unexpected or misshapen (named).
        FileNotFoundError: If one of the files is missing; a pickled adapter_model.bin is never read.
    """
    if adapters(model):
        raise ValueError(f"{type(model).__name__} has {len(adapters(model))} adapters already; remove() them first")
    config = json.loads(Path(folder, "adapter_config.json").read_text())
    _refuse(config, folder)
    tensors, _ = read_safetensors(Path(folder, "adapter_model.safetensors"))
    names = [name for name, _ in model.named_modules() if name and _is_target(config, name)]
    if not names:
        raise ValueError(f"target_modules={config['target_modules']!r} of {folder} match no module of the model")
    try:
        for name in names:
            r = _first(config.get("rank_pattern"), name, config["r"])
            alpha = _first(config.get("alpha_pattern"), name, config["lora_alpha"])
            alpha *= r**0.5 if config.get("use_rslora") else 1
            inject(model, partial(_is, name), r=r, alpha=alpha, dropout=config.get("lora_dropout", 0.0))
        layers = adapters(model)
        expected = {k: f for n, layer in layers.items() for k, f in zip(_keys(n, layer), layer.factors(), strict=True)}
        compare(tensors, expected, folder)
    except BaseException:
        if adapters(model):
            remove(model)  # the plain maps have not been touched: the model is as it was
        raise
    with torch.no_grad():
        for key, factor in expected.items():
            factor.copy_(tensors[key])
    return names


def _is(name: str, other: str, _: nn.Module) -> bool:
    return name == other


def _keys(name: str, layer: LoRALinear) -> tuple[str, str]:
    pattern = "{}{}.lora_embedding_{}" if isinstance(layer, LoRAEmbedding) else "{}{}.lora_{}.weight"
    return pattern.format(_PREFIX, name, "A"), pattern.format(_PREFIX, name, "B")


def _refuse(config: dict[str, Any], folder: str | Path) -> None:
    missing = [key for key in ("peft_type", "r", "lora_alpha", "target_modules") if not config.get(key)]
    if missing:
        raise ValueError(f"adapter_config.json of {folder} lacks {', '.join(missing)}")
    unknown = {key: value for key, value in config.items() if key not in _HANDLED | _HARMLESS and value}
    for key, fine in (("bias", ["none"]), ("init_lora_weights", _INITIAL)):
        if unknown.get(key) in fine:
            del unknown[key]
    if config["peft_type"] != "LORA":
        unknown["peft_type"] = config["peft_type"]
    if unknown:
        raise ValueError(f"adapter_config.json of {folder} asks for more than plain LoRA: {unknown}")


def _is_target(config: dict[str, Any], name: str) -> bool:
    def matches(targets: str | list[str] | None) -> bool:
        if isinstance(targets, str):
            return re.fullmatch(targets, name) is not None
        return any(name == target or name.endswith(f".{target}") for target in targets or [])

    return matches(config["target_modules"]) and not matches(config.get("exclude_modules"))


def _first(patterns: dict[str, Any] | None, name: str, default: Any) -> Any:
    return next((v for key, v in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", name)), default)


def _targets(model: nn.Module, names: list[str]) -> list[str] | str:
    """The ends of the names where these mean the same modules, as people write them; else one regular expression."""
    ends = sorted({name.rpartition(".")[2] for name in names})
    meant = {name for name, _ in model.named_modules() if _is_target({"target_modules": ends}, name)}
    return ends if meant == set(names) else "|".join(re.escape(name) for name in names)


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value
