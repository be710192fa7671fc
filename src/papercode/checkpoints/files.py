"""Safetensors in, safetensors out; a name on the hub becomes a folder. No pickle is ever read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def resolve(folder: str | Path) -> Path:
    """The folder itself, or what huggingface_hub fetches for a name such as `gpt2` (once; then it has it).

    Raises:
        FileNotFoundError: If there is no such folder, and no huggingface_hub to ask for such a name.
    """
    path = Path(folder)
    if path.is_dir():
        return path
    if path.exists() or path.is_absolute() or len(path.parts) > 2 or str(folder).startswith("."):
        raise FileNotFoundError(f"{folder} is no folder")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise FileNotFoundError(
            f"{folder} is no folder; if it is a name on the hub: pip install huggingface_hub"
        ) from None
    return Path(snapshot_download(str(folder), allow_patterns=["*.json", "*.safetensors", "*.txt"]))


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, from model.safetensors or from the files that its index names.

    Raises:
        FileNotFoundError: If there are none, or one of the files is missing.
        ValueError: If a file is damaged, lacks what the index promises, or if there are pickles only.
    """
    if (folder / _ONE).is_file():
        return read_safetensors(folder / _ONE)[0]
    if not (folder / _INDEX).is_file():
        pickles = [file.name for pattern in _PICKLES for file in folder.glob(pattern)]
        if pickles:
            raise ValueError(
                f"{folder} holds pickles only ({', '.join(sorted(pickles))}). To read a pickle can run any code, so "
                "none is read here: save the model as safetensors"
            )
        raise FileNotFoundError(f"{folder} holds neither {_ONE} nor {_INDEX}")
    places = json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"]
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        tensors |= read_safetensors(folder / file)[0]
    if absent := sorted(places.keys() - tensors.keys()):
        raise ValueError(f"{folder / _INDEX} names tensors that its files do not hold: {', '.join(absent)}")
    return tensors


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its header.

    Raises:
        ValueError: If it is no safetensors file (a pickle, for example), or was cut off.
        FileNotFoundError: If there is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error})") from error


def write_model(folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """config.json and model.safetensors, in a folder that is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / _ONE, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def compare(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path, other: list[str] | None = None
) -> None:
    """Refuses tensors that are not exactly the expected ones.

    Args:
        tensors: From the file.
        expected: What the model holds under these names.
        path: The file, for the message.
        other: Further disagreements to name.

    Raises:
        ValueError: Naming all that is missing, unexpected, of another shape or otherwise different.
    """
    shapes = [
        f"{name} ({tuple(tensors[name].shape)} in the file, {tuple(tensor.shape)} here)"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "misshapen": shapes,
        "different": other or [],
    }
    if any(problems.values()):
        told = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names)
        raise ValueError(f"{path} does not fit, nothing was loaded. {told}")
