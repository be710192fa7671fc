"""Prompts whose rule is in the prompt."""

import itertools
import math

import pytest
import torch

from papercode.data.in_context import key_values, key_values_entropy

K, V, SHOTS, B = 3, 5, 11, 17


def some(**kwargs):
    return next(key_values(**{"n_keys": K, "n_values": V, "shots": SHOTS, "batch": B} | kwargs))


def test_a_row_obeys_one_table():
    x = some()
    keys, pairs = x[:, ::2], x[:, 1::2] - K
    assert x.shape == (B, 2 * (SHOTS + 1))
    assert set(keys.flatten().tolist()) == set(range(K))
    assert torch.equal(pairs // V, keys)  # a pair says its key
    values = pairs % V
    assert set(values.flatten().tolist()) == set(range(V))
    tables = [dict(zip(row.tolist(), answers.tolist())) for row, answers in zip(keys, values)]
    assert all(table[k] == v for table, ks, vs in zip(tables, keys.tolist(), values.tolist()) for k, v in zip(ks, vs))
    assert len({tuple(sorted(table.items())) for table in tables}) > 5  # and rows have different ones


def test_shared_tables():
    stream = key_values(n_keys=K, n_values=V, shots=SHOTS, batch=B, n_tables=2)
    rows = [row for x in itertools.islice(stream, 4) for row in x]
    tables = {tuple(sorted(set(row[1::2].tolist()))) for row in rows if len(set(row[::2].tolist())) == K}
    assert len(tables) == 2


def test_the_same_for_the_same_seed_and_new_in_each_batch():
    assert torch.equal(some(seed=3), some(seed=3))
    assert not torch.equal(some(seed=3), some(seed=4))
    first, second = itertools.islice(key_values(seed=3), 2)
    assert not torch.equal(first, second)


def test_the_least_loss():
    """By hand: of two keys, one is unknown after two pairs with probability 1/4."""
    assert key_values_entropy(0, 2, 8) == pytest.approx(math.log(8))
    assert key_values_entropy(2, 2, 8) == pytest.approx(math.log(8) / 4)
    x = some(batch=20_000, shots=3)[:, ::2]
    new = (x[:, :3] != x[:, 3:]).all(1).double().mean().item()
    assert key_values_entropy(3, K, V) == pytest.approx(new * math.log(V), abs=0.02)


def test_no_shots_is_a_query_alone():
    assert some(shots=0).shape == (B, 2)


@pytest.mark.parametrize("name", ["n_keys", "n_values", "n_tables", "batch"])
def test_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0.*of at least 1"):
        some(**{name: 0})
    with pytest.raises(ValueError, match="shots=-1 of at least 0"):
        some(shots=-1)
