"""How many classes a classifier has: the layout says it by naming them."""

from typing import Any

from papercode.checkpoints.config import Config


def n_classes(config: Config) -> int:
    """id2label names them; without it there are num_labels, or 2, as in transformers."""
    names = config.take("id2label", None)
    return config.take("num_labels", 2) if names is None else len(names)


def labels(number: int) -> dict[str, Any]:
    """The inverse, with the names that transformers gives to classes without names."""
    names = [f"LABEL_{i}" for i in range(number)]
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
