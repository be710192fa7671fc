"""Safetensors read and written; damage, pickles and names on the hub."""

import json
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from papercode.checkpoints.files import compare, read_safetensors, read_tensors, resolve, write_model

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def test_written_and_read_again(tmp_path):
    write_model(tmp_path / "new" / "folder", {"width": 3}, TENSORS)
    found = read_tensors(tmp_path / "new" / "folder")
    assert read_safetensors(tmp_path / "new" / "folder" / "model.safetensors")[1] == {"format": "pt"}
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in found)
    assert json.loads((tmp_path / "new" / "folder" / "config.json").read_text()) == {"width": 3}


def shards(folder, places):
    for file in set(places.values()):
        save_file({n: TENSORS[n] for n, f in places.items() if f == file and n in TENSORS}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_several_files(tmp_path):
    shards(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    assert read_tensors(tmp_path).keys() == TENSORS.keys()
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-2\.safetensors"):
        read_tensors(tmp_path)


def test_an_index_that_promises_too_much(tmp_path):
    shards(tmp_path, {"a": "model-1.safetensors", "c": "model-1.safetensors"})
    with pytest.raises(ValueError, match="names tensors that its files do not hold: c"):
        read_tensors(tmp_path)


def test_a_file_that_was_cut_off(tmp_path):
    write_model(tmp_path, {}, TENSORS)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"model\.safetensors is no safetensors file"):
            read_tensors(tmp_path)


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was read')",)


def test_no_pickle_is_ever_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(ValueError, match=r"holds pickles only \(pytorch_model\.bin\).*save the model as safetensors"):
        read_tensors(tmp_path)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_safetensors(tmp_path / "pytorch_model.bin")
    write_model(tmp_path, {}, TENSORS)
    assert read_tensors(tmp_path).keys() == TENSORS.keys()  # a pickle beside does no harm


def test_nothing_there(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds neither model\.safetensors nor model\.safetensors\.index\.json"
    ):
        read_tensors(tmp_path)


def test_folders_and_names_on_the_hub(tmp_path, monkeypatch):
    assert resolve(tmp_path) == tmp_path
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert resolve("openai/gpt2") == resolve("gpt2") == tmp_path
    assert [name for name, _ in asked] == ["openai/gpt2", "gpt2"]
    assert not any("bin" in pattern or pattern == "*" for pattern in asked[0][1])
    for path in ("./gpt2", "/gpt2", str(tmp_path / "gpt2"), "a/b/c", "../gpt2"):
        with pytest.raises(FileNotFoundError, match=r"is no folder$"):
            resolve(path)
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"file is no folder$"):
        resolve("file")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="if it is a name on the hub: pip install huggingface_hub"):
        resolve("gpt2")


def test_comparing():
    compare({"a": torch.zeros(2)}, {"a": torch.ones(2)}, "file")
    found = {"a": torch.zeros(2), "c": torch.zeros(3), "x": torch.zeros(1)}
    with pytest.raises(ValueError, match="nothing was loaded") as raised:
        compare(found, {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}, "file", ["d (why)"])
    told = "missing: b; unexpected: x; misshapen: c ((3,) in the file, (2,) here); different: d (why)"
    assert str(raised.value) == f"file does not fit, nothing was loaded. {told}"
