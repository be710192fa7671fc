"""LoRA in a whole model: put adapters in, merge them, take them out [@hu2022lora, section 4.2].

Imports: `LoRALinear` and `LoRAEmbedding` are the adapted maps (same paper).

Wherever modules are chosen, `targets` is either a list of names, each the whole name of a module or the end of one
("q" means every q, "encoder.0.attention.q" one of them), or a predicate of name and module. A name that matches
nothing is an error, and each function checks everything before it changes anything.
"""

from collections.abc import Callable, Iterable, Mapping

from torch import nn

from papercode.adaptation.lora import LoRALinear
from papercode.adaptation.lora_embedding import LoRAEmbedding

Targets = Iterable[str] | Callable[[str, nn.Module], bool]
"""Names or ends of names, or a predicate of name and module."""


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted maps of a model by name, each once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def select(modules: Mapping[str, nn.Module], targets: Targets) -> dict[str, nn.Module]:
    """Those of the named modules that targets mean.

    Args:
        modules: By name, as in dict(model.named_modules()).
        targets: Names or ends of names, or a predicate of name and module.

    Raises:
        TypeError: If targets is one str, which is a list of letters.
        ValueError: If nothing matches, or a name does not.
    """
    if isinstance(targets, str):
        raise TypeError(f"targets={targets!r} must be a list of names or a predicate, not a str")
    if callable(targets):
        found = {name: module for name, module in modules.items() if targets(name, module)}
    else:
        found = {}
        for target in targets:
            hits = {name: module for name, module in modules.items() if name == target or name.endswith(f".{target}")}
            if not hits:
                ends = sorted({name.rpartition(".")[2] for name in modules if name})
                raise ValueError(f"target {target!r} matches no module; their names end in {', '.join(ends)}")
            found |= hits
    if not found:
        raise ValueError(f"targets={targets!r} match none of {len(modules)} modules")
    return found


def inject(
    model: nn.Module,
    targets: Targets,
    *,
    r: int,
    alpha: float | int,
    dropout: float = 0.0,
    layer: Callable[..., LoRALinear] | None = None,
) -> list[str]:
    """Replaces each target by its adapted map, in place. For another rank at other targets, call it again.

    A map that the model uses under several names gets one adapter, shared as the map is. Nothing is
    frozen: see [`freeze`][papercode.adaptation.lora_report.freeze].

    Args:
        model: Any module.
        targets: Which modules to adapt.
        r: Rank.
        alpha: The update is scaled by alpha / r.
        dropout: On the input of A.
        layer: Makes the adapted map from (module, r, alpha, dropout=…), for example a `partial` of `LoRAFusedLinear`;
            `LoRAEmbedding` for embeddings and `LoRALinear` for the rest unless given.

    Returns:
        The names of the adapted modules.

    Raises:
        ValueError: If nothing matches, a target is adapted already, or the rank does not fit (naming the module).
        TypeError: If a target is no map from one width to another.
    """
    found = select(dict(model.named_modules(remove_duplicate=False)), targets)
    made: dict[nn.Module, LoRALinear] = {}
    for name, module in found.items():
        parent = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, LoRALinear) or isinstance(parent, LoRALinear):
            raise ValueError(f"targets match {name!r}, which is adapted already; leave it out or call remove() first")
        if not name:
            raise ValueError("targets match the model itself, which cannot be replaced in place: wrap it in LoRALinear")
        if module not in made:
            make = layer or (LoRAEmbedding if isinstance(module, nn.Embedding) else LoRALinear)
            try:
                made[module] = make(module, r, alpha, dropout=dropout)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}: {error}") from error
    for name, module in found.items():
        _replace(model, name, made[module])
    return list(found)


def remove(model: nn.Module, targets: Targets | None = None) -> None:
    """Puts the plain maps back, with the update where it was merged and without it where not.

    Args:
        model: A model with adapters.
        targets: Which of them; all unless given.

    Raises:
        ValueError: If there is none.
    """
    layers = set(_chosen(model, targets).values())
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in layers:
            _replace(model, name, module.base)


def merge(model: nn.Module, targets: Targets | None = None) -> None:
    """Adds the updates to the weights: one matrix product a map again, so inference is as fast as without LoRA.

    Args:
        model: A model with adapters.
        targets: Which of them; all unless given.

    Raises:
        ValueError: If there is none, one is merged already, or its weight is used elsewhere too (tied embeddings).
        TypeError: If a base holds no floating-point weight.
    """
    layers = _chosen(model, targets)
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            holders.setdefault(id(parameter), []).append(name)
    for name, layer in layers.items():
        shared = holders.get(id(layer.base._parameters.get("weight", layer)), [])
        if len(shared) > 1:
            raise ValueError(f"cannot merge {name!r}: {' and '.join(shared)} hold one weight, and all would change")
    _each(layers, LoRALinear.merge, LoRALinear.unmerge, merged=False)


def unmerge(model: nn.Module, targets: Targets | None = None) -> None:
    """Subtracts the updates from the weights again; the weights come back up to rounding.

    Args:
        model: A model with merged adapters.
        targets: Which of them; all unless given.

    Raises:
        ValueError: If there is none, or one is not merged.
    """
    _each(_chosen(model, targets), LoRALinear.unmerge, LoRALinear.merge, merged=True)


def _chosen(model: nn.Module, targets: Targets | None) -> dict[str, LoRALinear]:
    layers = adapters(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no adapters: inject() first")
    return layers if targets is None else {name: layers[name] for name in select(layers, targets)}


def _each(layers: dict[str, LoRALinear], do: Callable, undo: Callable, *, merged: bool) -> None:
    done: list[LoRALinear] = []
    for step in (lambda layer: layer.check(merged), do):
        for name, layer in layers.items():
            try:
                step(layer)
            except (TypeError, ValueError) as error:
                for other in done:
                    undo(other)
                raise type(error)(f"{name}: {error}") from error
            if step is do:
                done.append(layer)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
