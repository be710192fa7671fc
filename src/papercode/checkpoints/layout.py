"""Released weights: tensors by their names in the Hugging Face layout, to and from the names of our modules.

A [`Layout`][papercode.checkpoints.layout.Layout] is a table of rules for all architectures of one model type: an
encoder, the encoder with this head or that one. Every tensor of a file matches exactly one rule, or it is refused. A
model that has a part of the table only, for instance no head, takes its part; what it needs has to be there.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from papercode.checkpoints.config import Config
from papercode.checkpoints.files import compare, read_tensors, resolve, write_model

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Rule:
    """One tensor of the layout and ours, each `*` standing for the same number in both.

    Args:
        theirs: Name in the file.
        ours: Name in the model's state; several if theirs holds them side by side, in equal parts of the output.
        transposed: Whether theirs is (d_in, d_out), as in GPT-2's Conv1D.
    """

    theirs: str
    ours: str | tuple[str, ...]
    transposed: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Our names, of which there is mostly one."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    def filled(self, numbers: Sequence[str]) -> "Rule":
        """The same rule for one layer."""
        return Rule(_fill(self.theirs, numbers), tuple(_fill(part, numbers) for part in self.parts), self.transposed)

    def split(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Their tensor as ours, each with memory of its own."""
        if len(self.parts) == 1 and not self.transposed:
            return (tensor,)
        parts = (tensor.mT if self.transposed else tensor).chunk(len(self.parts))
        return tuple(part.clone(memory_format=torch.contiguous_format) for part in parts)

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """Ours as theirs."""
        joined = torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]
        return (joined.mT if self.transposed else joined).contiguous()


@dataclass(frozen=True)
class Architecture:
    """One of the models that share a layout.

    Args:
        name: As config.json lists it.
        root: What this model's names lack in the rules: `"encoder."` where it is a part of another model.
        build: Makes the model out of its configuration and the layout's arguments; the class itself unless given.
    """

    name: str
    root: str = ""
    build: Callable[[Config, dict[str, Any]], nn.Module] | None = None


@dataclass(frozen=True)
class Layout:
    """How a type of models is stored.

    Args:
        model_type: As config.json has it.
        rules: For the tensors of all architectures.
        arguments: Makes the arguments of a model out of its configuration.
        configuration: Makes the configuration out of a model.
        architectures: By our classes.
        prefix: What their names may lack, if the file holds the part alone: `"bert."`.
        aliases: Old names, as regular expressions with their replacements.
        ignored: Tensors without information, as regular expressions: masks, numbered positions.
        tied: Tensors that may be stored a second time, by the name that they are tied to; they have to be equal.
    """

    model_type: str
    rules: Sequence[Rule]
    arguments: Callable[[Config], dict[str, Any]]
    configuration: Callable[[Any], dict[str, Any]]
    architectures: Mapping[type[nn.Module], Architecture]
    prefix: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)
    ignored: Sequence[str] = ()
    tied: Mapping[str, str] = field(default_factory=dict)

    def load(self, cls: type[M], folder: str | Path, dtype: torch.dtype | None = None) -> M:
        """A model with the weights of a folder, or of a name on the hub; in evaluation mode. All or nothing.

        Args:
            cls: One of the architectures.
            folder: With config.json and safetensors, in one file or in several with their index.
            dtype: Of the weights; as stored unless given.

        Raises:
            FileNotFoundError: If the folder, its config.json or its weights are missing.
            ValueError: If the folder holds another type of model, attributes that are not handled, a pickle in place of
                safetensors, a damaged file, or tensors that are missing, unexpected or misshapen. All are named.
        """
        path = resolve(folder)
        config = Config.read(path)
        if config.values.get("model_type") != self.model_type:
            kind = config.values.get("model_type")
            raise ValueError(f"{config.source} has model_type={kind!r}; {cls.__name__} reads {self.model_type!r}")
        arguments = self.arguments(config)
        build, root = self._architecture(cls).build, self._architecture(cls).root
        with torch.device("meta"):
            model = cls(**arguments) if build is None else build(config, arguments)
        config.finish()
        expected = model.state_dict()
        tensors = self.ours(read_tensors(path), path, {root + name for name in expected})
        tensors = {name.removeprefix(root): tensor for name, tensor in tensors.items()}
        compare(tensors, expected, path)
        model.load_state_dict({name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, assign=True)
        return model.eval()  # type: ignore[return-value]

    def save(self, model: nn.Module, folder: str | Path) -> None:
        """Writes config.json and model.safetensors, which transformers and `load` read.

        Raises:
            ValueError: If the model has parameters that no rule names (adapters, replaced layers).
        """
        architecture, root = self._architecture(type(model)).name, self._architecture(type(model)).root
        state = {root + name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        theirs = {}
        for general in self.rules:
            for numbers in [n for name in state if (n := _numbers(general.parts[0], name)) is not None]:
                rule = general.filled(numbers)
                if state.keys() >= set(rule.parts):
                    theirs[rule.theirs] = rule.join([state.pop(name) for name in rule.parts])
        if state:
            raise ValueError(f"{type(model).__name__} has tensors that the layout does not name: {', '.join(state)}")
        if root:
            theirs = {name.removeprefix(self.prefix): tensor for name, tensor in theirs.items()}
        config = {"model_type": self.model_type, "architectures": [architecture], **self.configuration(model)}
        write_model(folder, config, theirs)

    def ours(self, theirs: Mapping[str, Tensor], source: object, wanted: Iterable[str]) -> dict[str, Tensor]:
        """Their tensors under our names, as far as they are wanted.

        Raises:
            ValueError: Naming tensors that match no rule, or that differ from what they are tied to.
        """
        found: dict[str, Tensor] = {}
        wanted, unexpected = set(wanted), []
        used = [r for r in self.rules if any(_numbers(p, name) is not None for p in r.parts for name in wanted)]
        named = {self._full(name): tensor for name, tensor in theirs.items()}
        for (name, tensor), stored in zip(named.items(), theirs, strict=True):
            if any(re.fullmatch(pattern, name) for pattern in self.ignored):
                continue
            if name in self.tied:
                original = named.get(self.tied[name])
                if original is not None and not torch.equal(original, tensor):
                    raise ValueError(f"{source} has a {name} that differs from {self.tied[name]}; here they are one")
                continue
            rule, general = self._rule(name)
            if rule is not None and wanted & set(rule.parts):
                found.update(zip(rule.parts, rule.split(tensor), strict=True))
            elif general is None or general in used:  # of a part that the model has: one layer too many, for instance
                unexpected.append(stored)
        if unexpected:
            raise ValueError(f"{source} does not fit, nothing was loaded. unexpected: {', '.join(sorted(unexpected))}")
        return found

    def _architecture(self, cls: type) -> Architecture:
        if cls not in self.architectures:
            known = ", ".join(known.__name__ for known in self.architectures)
            raise ValueError(f"{cls.__name__} has no entry among the architectures of {self.model_type!r}: {known}")
        return self.architectures[cls]

    def _full(self, name: str) -> str:
        for old, new in self.aliases.items():
            name = re.sub(old, new, name)
        whole = name.startswith(self.prefix) or name in self.tied or self._rule(name)[0] is not None
        return name if whole else self.prefix + name

    def _rule(self, name: str) -> tuple[Rule, Rule] | tuple[None, None]:
        """The rule for a tensor of theirs, with numbers and with stars."""
        for rule in self.rules:
            if (numbers := _numbers(rule.theirs, name)) is not None:
                return rule.filled(numbers), rule
        return None, None


def _numbers(pattern: str, name: str) -> tuple[str, ...] | None:
    """What the stars of a pattern stand for in a name, if it fits."""
    if "*" not in pattern:
        return () if pattern == name else None
    found = re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name)
    return None if found is None else found.groups()


def _fill(pattern: str, numbers: Sequence[str]) -> str:
    left = iter(numbers)
    return re.sub(r"\*", lambda _: next(left), pattern)
