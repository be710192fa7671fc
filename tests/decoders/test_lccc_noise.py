import math
import random

import numpy as np
import pytest

from papercode.decoders.lccc_noise import NoiseClassifier, accuracy, garbled

PARTS = [
    "今天天气",
    "我想去吃",
    "你觉得呢",
    "火锅很好",
    "明天见面",
    "我在家里",
    "真的好累",
    "一起出去",
    "电影好看",
    "早点休息",
]


def corpus(n, seed):
    draw = random.Random(seed)
    clean = [["".join(draw.sample(PARTS, 2)) for _ in range(2)] for _ in range(n)]
    noise = [i % 2 == 1 for i in range(n)]
    return [garbled(d, i) if bad else d for i, (d, bad) in enumerate(zip(clean, noise))], noise


def test_garbled_keeps_the_post_and_the_characters():
    dialogue = ["你觉得呢", "今天天气我想去吃火锅"]
    assert garbled(dialogue, 1) == garbled(dialogue, 1)
    assert garbled(dialogue, 1)[0] == dialogue[0]
    assert sorted(garbled(dialogue, 1)[1]) == sorted(dialogue[1])
    assert garbled(dialogue, 1) != dialogue != garbled(dialogue, 2) != garbled(dialogue, 1)


def test_learns_and_generalises():
    filtering = NoiseClassifier().fit(*corpus(200, 0))
    assert accuracy(filtering, *corpus(200, 0)) == 1
    assert accuracy(filtering, *corpus(100, 1)) > 0.9
    assert accuracy(NoiseClassifier(), *corpus(100, 1)) == 0.5  # untrained, nothing is noise


def test_is_the_same_every_time():
    one, two = (NoiseClassifier(1009).fit(*corpus(60, 0), steps=20) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert one.bias == two.bias
    # and on every machine: the hash is not Python's, which changes from run to run
    places, values = NoiseClassifier(1 << 15).features(["好"])
    assert places.tolist() == [1683, 19652, 10926, 18550]
    assert values @ values == pytest.approx(1)


def test_features_by_hand():
    places, values = NoiseClassifier(1 << 30).features(["好好"])
    # twice: the line's ends, the sign; once: start and sign, both signs, sign and end
    expected = np.log1p([2, 2, 1, 1, 1])
    assert len(places) == 5
    assert sorted(values) == pytest.approx(sorted(expected / np.linalg.norm(expected)))
    order = [NoiseClassifier(1 << 30).features([turn])[0].tolist() for turn in ("好坏", "坏好")]
    assert sorted(order[0]) != sorted(order[1])  # pairs tell the order


def test_a_step_is_the_gradient():
    dialogues, noise = corpus(6, 0)
    filtering = NoiseClassifier(101)
    filtering.weight[:] = np.linspace(-1, 1, 101)

    def objective(model):
        logs = [math.log(p if bad else 1 - p) for p, bad in ((model(d), b) for d, b in zip(dialogues, noise))]
        return -sum(logs) / len(logs) + 0.5 * 1e-2 * float(model.weight @ model.weight)

    before, slope = filtering.weight.copy(), []
    for i in range(101):
        sides = []
        for step in (1e-6, -1e-6):
            filtering.weight[:] = before
            filtering.weight[i] += step
            sides.append(objective(filtering))
        slope.append((sides[0] - sides[1]) / 2e-6)
    filtering.weight[:] = before
    filtering.bias = 1e-6
    up = objective(filtering)
    filtering.bias = -1e-6
    bias_slope = (up - objective(filtering)) / 2e-6
    filtering.bias = 0.0
    filtering.fit(dialogues, noise, steps=1, rate=0.5, decay=1e-2)
    assert np.allclose(filtering.weight, before - 0.5 * np.array(slope), atol=1e-7)
    assert filtering.bias == pytest.approx(-0.05 * bias_slope, abs=1e-7)


def test_scores_are_probabilities():
    filtering = NoiseClassifier(3)
    for bias, expected in ((0, 0.5), (1000, 1), (-1000, 0), (math.log(3), 0.75)):
        filtering.bias = float(bias)
        assert filtering(["好"]) == pytest.approx(expected)
    assert NoiseClassifier()([]) == 0.5


def test_accuracy_by_hand():
    dialogues = [["a"], ["b"], ["c"], ["d"]]
    scores = dict(zip("abcd", (0.1, 0.5, 0.6, 0.9)))
    noise = [False, False, True, False]
    assert accuracy(lambda d: scores[d[0]], dialogues, noise) == 0.75
    assert accuracy(lambda d: scores[d[0]], dialogues, noise, 0.95) == 0.75
    assert accuracy(lambda d: scores[d[0]], dialogues, noise, 0.05) == 0.25
    assert math.isnan(accuracy(None, [], []))


def test_errors():
    with pytest.raises(ValueError, match="places=0 must be at least 1"):
        NoiseClassifier(0)
    for noise in ([True, True], [False, False], [True]):
        with pytest.raises(ValueError, match="need one answer each, and examples of both kinds"):
            NoiseClassifier(7).fit([["a"], ["b"]], noise)
