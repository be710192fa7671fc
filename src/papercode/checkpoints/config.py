"""config.json of the Hugging Face layout, read so that nothing in it is passed over in silence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# what says nothing about the function that the weights are: bookkeeping, training, generation, names of labels
HARMLESS = frozenset({
    "_name_or_path", "_num_labels", "architectures", "bos_token_id", "dtype", "eos_token_id", "finetuning_task",
    "gradient_checkpointing", "id2label", "initializer_range", "label2id", "model_type", "output_attentions",
    "output_hidden_states", "pad_token_id", "problem_type", "return_dict", "task_specific_params", "tokenizer_class",
    "torch_dtype", "transformers_version", "use_cache",
})  # fmt: skip
# what would make another function of them, at the only value that is supported
FIXED: Mapping[str, Any] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "pruned_heads": {},
    "tie_word_embeddings": True,
}
_NONE = object()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not valid JSON in UTF-8, or not an object.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # of the decoding, too
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, not an object")
    return values


class Config:
    """The attributes of a configuration, each of which has to be taken, expected or harmless.

    Args:
        values: What config.json holds.
        source: Where it comes from, for messages.
    """

    def __init__(self, values: Mapping[str, Any], source: str | Path):
        self.values, self.source = dict(values), source
        self._known = set(HARMLESS)

    @classmethod
    def read(cls, folder: Path) -> "Config":
        """Reads folder/config.json.

        Raises:
            FileNotFoundError: If it is missing.
            ValueError: If it is no JSON object.
        """
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no config.json: it is no folder of a released model")
        return cls(read_json(path), path)

    def take(self, name: str, default: Any = _NONE) -> Any:
        """The attribute, which the model handles at any value.

        Raises:
            ValueError: If it is missing and has no default.
        """
        self._known.add(name)
        if name not in self.values and default is _NONE:
            raise ValueError(f"{self.source} does not say {name}")
        return self.values.get(name, default)

    def ignore(self, *names: str) -> None:
        """Attributes that make no difference to this model."""
        self._known.update(names)

    def expect(self, **values: Any) -> None:
        """Attributes that are handled at one value only, or at those in a set.

        Raises:
            ValueError: Naming the attribute that has another.
        """
        for name, value in values.items():
            self._known.add(name)
            allowed = value if isinstance(value, set) else [value]
            if name in self.values and self.values[name] not in allowed:
                told = " or ".join(map(repr, sorted(allowed, key=repr)))
                raise ValueError(f"{self.source} has {name}={self.values[name]!r}; only {told} is supported")

    def finish(self) -> None:
        """To be called last.

        Raises:
            ValueError: Naming attributes that nobody has taken, expected or ignored.
        """
        self.expect(**{name: value for name, value in FIXED.items() if name not in self._known})
        if rest := sorted(self.values.keys() - self._known):
            told = ", ".join(f"{name}={self.values[name]!r}" for name in rest)
            raise ValueError(f"{self.source} holds attributes that are not handled: {told}")
