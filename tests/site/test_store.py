import datetime
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from papercode.site.store import Store, digest

KEY = "ab" + "0" * 62
VALUE = [{"ok": True, "got": "é\n"}, None, 1.5]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def entry(store):
    [path] = (path for path in store.folder.rglob("*") if path.is_file())
    return path


def test_gives_back_what_was_put(store):
    assert store.get(KEY) is None
    store.put(KEY, VALUE)
    assert store.get(KEY) == VALUE
    assert store.get(KEY.replace("a", "c")) is None
    assert Store(store.folder).get(KEY) == VALUE
    store.put(KEY, "other")
    assert store.get(KEY) == "other"
    assert len(list(store.folder.rglob("*"))) == 2  # the entry and its folder: nothing temporary is left


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"true", b"false"),
        lambda data: data.split(b"\n", 1)[1],
        lambda data: data + b"\n",
        lambda data: os.urandom(len(data)),
    ],
)
def test_drops_a_corrupt_entry(store, spoil):
    store.put(KEY, VALUE)
    path = entry(store)
    path.write_bytes(spoil(path.read_bytes()))
    assert store.get(KEY) is None
    assert not path.exists()
    store.put(KEY, VALUE)
    assert store.get(KEY) == VALUE


def test_an_entry_that_another_process_removes_meanwhile_is_still_read(store, monkeypatch):
    store.put(KEY, VALUE)
    utime = os.utime

    def removed_just_before(path, *rest):
        Path(path).unlink()
        utime(path, *rest)

    monkeypatch.setattr(os, "utime", removed_just_before)
    assert store.get(KEY) == VALUE


def test_readers_never_see_half_an_entry(store):
    """A writer that never rests, and a reader that would drop what it finds half written."""
    values = ["x" * 200_000, "y" * 100_000]
    store.put(KEY, values[0])
    rest = threading.Event()

    def write():
        while not rest.is_set():
            for value in values:
                store.put(KEY, value)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [store.get(KEY) for _ in range(150)]
    finally:
        rest.set()
        writer.join()
    assert set(seen) <= set(values)


def test_prunes_what_was_used_longest_ago(store):
    keys = [digest(number) for number in range(4)]
    for age, key in enumerate(keys):
        store.put(key, "x" * 1000)
        os.utime(store._path(key), (1000 + age, 1000 + age))
    store.get(keys[0])  # used just now
    Store(store.folder, limit=2300).prune()
    assert [store.get(key) is not None for key in keys] == [True, False, False, True]
    Store(store.folder).prune()
    assert store.get(keys[0]) is not None
    Store(store.folder, limit=0).prune()
    assert store.get(keys[0]) is None


def test_pruning_nothing(tmp_path):
    Store(tmp_path / "nowhere").prune()
    assert not (tmp_path / "nowhere").exists()


def test_a_key_depends_on_everything_in_it():
    base = [1, "a", {"b": [True, None]}, Path("x")]
    variants = [
        [2, "a", {"b": [True, None]}, Path("x")],
        [1, "b", {"b": [True, None]}, Path("x")],
        [1, "a", {"c": [True, None]}, Path("x")],
        [1, "a", {"b": [False, None]}, Path("x")],
        [1, "a", {"b": [True, None]}, Path("y")],
        [1, "a", {"b": [True, None]}],
        [[1], "a", {"b": [True, None]}, Path("x")],
    ]
    keys = {digest(value) for value in [base, *variants]}
    assert len(keys) == 1 + len(variants)
    assert digest(base) == digest(list(base))
    assert all(len(key) == 64 for key in keys)


def test_a_key_does_not_depend_on_the_order_of_a_dictionary():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1, "b": 2}) != digest({"a": 2, "b": 1})


def test_front_matter_may_hold_anything_that_yaml_knows():
    """Names that are numbers or dates, beside texts: JSON could not sort them."""
    meta = {2017: "x", "key": "y", datetime.date(2017, 6, 12): {None: [1]}}
    assert digest(meta) == digest(dict(reversed(meta.items())))
    assert digest(meta) != digest({**meta, 2017: "z"})
    assert digest({1: "x"}) != digest({"1": "x"})


def test_keys_are_the_same_in_every_process():
    """Sets come in an order that Python draws anew for each process."""
    script = "from papercode.site.store import digest; print(digest({*'abcdefgh'}, {'x': {*'ab'}}))"
    keys = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        keys.add(done.stdout)
    assert len(keys) == 1
    assert digest({*"abc"}) != digest({*"abd"})
