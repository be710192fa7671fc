"""What trains and what is frozen [@hu2022lora, section 4.1: the weights of the model receive no gradient].

Imports: `adapters` finds the adapted maps of a model, `select` modules by name (same paper).
"""

from dataclasses import dataclass

from torch import nn

from papercode.adaptation.lora_model import Targets, adapters, select


@dataclass(frozen=True)
class Report:
    """What trains and what does not, in numbers of parameters.

    Args:
        adapters: Trainable numbers of each adapted map.
        others: Trainable numbers of each other parameter: a classifier's head, or what nobody froze.
        frozen: How many numbers do not train.
    """

    adapters: dict[str, int]
    others: dict[str, int]
    frozen: int

    @property
    def trainable(self) -> int:
        """All that trains."""
        return sum(self.adapters.values()) + sum(self.others.values())

    def __str__(self) -> str:
        total = self.trainable + self.frozen
        return (
            f"{self.trainable:,} of {total:,} parameters train ({self.trainable / max(total, 1):.2%}): "
            f"{sum(self.adapters.values()):,} in {len(self.adapters)} adapters, {sum(self.others.values()):,} elsewhere"
        )


def report(model: nn.Module) -> Report:
    """Counts what trains, each shared parameter once."""
    layers = adapters(model)
    own = {id(p): name for name, layer in layers.items() for p in (layer.A, layer.B)}
    inside, others, frozen = dict.fromkeys(layers, 0), {}, 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            frozen += parameter.numel()
        elif id(parameter) in own:
            inside[own[id(parameter)]] += parameter.numel()
        else:
            others[name] = parameter.numel()
    return Report(inside, others, frozen)


def freeze(model: nn.Module, keep: Targets = ()) -> Report:
    """Lets the adapters train and nothing else, and says so.

    Args:
        model: A model with adapters.
        keep: Modules all of whose parameters train too, such as the head of a classifier.

    Returns:
        What trains now.

    Raises:
        ValueError: If the model has no adapters, or keep matches nothing.
    """
    layers = adapters(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no adapters: inject() before freeze()")
    kept = select(dict(model.named_modules()), keep) if keep else {}
    model.requires_grad_(False)
    for module in kept.values():
        module.requires_grad_(True)
    for layer in layers.values():
        layer.A.requires_grad_(True)
        layer.B.requires_grad_(True)
    return report(model)
