"""A content-addressed store on disk: what was computed once for a key is read back, whoever computed it."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest(*parts: Any) -> str:
    """A key for anything that JSON can write; paths and dates are written as text, sets and dictionaries in order."""
    text = json.dumps(_ordered(parts), default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _ordered(value: Any) -> Any:
    """`value` with its dictionaries as pairs, whose names may be of any type, and its sets as lists, both sorted."""
    if isinstance(value, dict):
        return {"pairs": sorted(([_ordered(k), _ordered(v)] for k, v in value.items()), key=repr)}
    if isinstance(value, set | frozenset):
        return {"set": sorted((_ordered(v) for v in value), key=repr)}
    return [_ordered(v) for v in value] if isinstance(value, list | tuple) else value


class Store:
    """Maps keys to JSON values in a folder that several processes may share.

    Every entry carries the hash of its own bytes: one that was cut short or tampered with is dropped and counts as
    absent. Entries are put in place by an atomic rename, so a reader never sees half of one.
    """

    def __init__(self, folder: Path, limit: int = 512 * 2**20):
        self.folder = folder
        self.limit = limit

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]

    def get(self, key: str) -> Any | None:
        """The value of `key`, or None."""
        path = self._path(key)
        try:
            checksum, _, body = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # another process pruned it just now
            os.utime(path)  # `prune` drops what was used longest ago
        return json.loads(body)

    def put(self, key: str, value: Any) -> None:
        """Stores `value` (anything JSON can write) under `key`."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        body = json.dumps(value, ensure_ascii=False).encode()
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        Path(file.name).replace(path)

    def prune(self) -> None:
        """Drops the entries used longest ago until the folder is within its limit (bytes)."""
        found = [(s.st_mtime, s.st_size, path) for path, s in _stats(self.folder.glob("*/*"))]
        excess = sum(size for _, size, _ in found) - self.limit
        for _, size, path in sorted(found):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


class Forgetful(Store):
    """A store that keeps nothing, for whoever wants everything made afresh."""

    def __init__(self) -> None:
        super().__init__(Path())

    def get(self, key: str) -> None:
        """Nothing is known."""

    def put(self, key: str, value: Any) -> None:
        """Nothing is kept."""

    def prune(self) -> None:
        """Nothing is there."""


def _stats(paths: Iterable[Path]) -> Iterable[tuple[Path, os.stat_result]]:
    for path in paths:
        try:
            yield path, path.stat()
        except OSError:  # another process pruned it
            continue
