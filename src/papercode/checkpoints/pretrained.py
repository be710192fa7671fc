"""What gives a model its `from_pretrained` and `to_transformers`."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch
from torch import nn

if TYPE_CHECKING:
    from papercode.checkpoints.layout import Layout


P = TypeVar("P", bound="Pretrained")


class Pretrained(nn.Module):
    """A model whose released weights papercode.checkpoints can read: `class BERT(Pretrained, layout="bert")`.

    The table of names, `LAYOUT` in the module of that name, is loaded when it is first asked for.
    """

    _layout: ClassVar[str]

    def __init_subclass__(cls, layout: str | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if layout is not None:
            cls._layout = layout

    @classmethod
    def from_pretrained(cls: type[P], folder: str | Path, dtype: torch.dtype | None = None) -> P:
        """The model with released weights, in evaluation mode; see [`Layout`][papercode.checkpoints.layout.Layout].

        Args:
            folder: In the Hugging Face layout; or a name on the hub, where huggingface_hub is installed.
            dtype: Of the weights; as stored unless given.

        Raises:
            FileNotFoundError: If there is no such folder, or its files are missing.
            ValueError: If it holds anything that this model does not handle; nothing is half loaded.
        """
        return cls._table().load(cls, folder, dtype)

    def to_transformers(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors as the transformers library has them.

        Args:
            folder: Is made if need be.

        Raises:
            ValueError: If the model holds parameters that the layout has no name for.
        """
        self._table().save(self, folder)

    @classmethod
    def _table(cls) -> "Layout":
        return importlib.import_module(f"papercode.checkpoints.{cls._layout}").LAYOUT
