"""Attention as the papers write it: one row, one sum at a time."""

import math

import torch

from papercode.recurrent.luong import ConcatScore, DotScore, GeneralScore


def additive_by_hand(score, s, h):
    """v tanh(W s + U h + b), one sum at a time [@bahdanau2015neural, appendix A.1.2]."""
    W, U, v = (layer.weight.tolist() for layer in (score.query, score.key, score.v))
    b = [0.0] * len(W) if score.key.bias is None else score.key.bias.tolist()
    s, h, total = s.tolist(), h.tolist(), 0.0
    for k in range(len(W)):
        inner = sum(W[k][i] * s[i] for i in range(len(s))) + sum(U[k][i] * h[i] for i in range(len(h)))
        total += v[0][k] * math.tanh(inner + b[k])
    return torch.tensor(total, dtype=torch.float64)


def scores_by_hand(score, h, keys):
    """The scores of one row, as the paper writes them [@luong2015effective, section 3.1]."""
    if isinstance(score, GeneralScore):
        return torch.stack([h @ score.key.weight @ key for key in keys])
    if isinstance(score, DotScore):
        return torch.stack([sum(h[i] * key[i] for i in range(len(h))) for key in keys])
    if isinstance(score, ConcatScore):
        return torch.stack([score.v.weight[0] @ torch.tanh(score.both.weight @ torch.cat([h, key])) for key in keys])
    return (score.positions.weight @ h)[: len(keys)]


def local_by_hand(h, keys, scores, centre, reach, sigma=math.inf):
    """The window of section 3.2, place by place, counted from 1: weights of all places, and the context."""
    inside = [s for s in range(1, len(keys) + 1) if abs(s - centre) <= reach]
    total = sum(scores[s - 1].exp() for s in inside)
    weights = torch.zeros(len(keys)).double()
    for s in inside:
        weights[s - 1] = scores[s - 1].exp() / total * math.exp(-((s - centre) ** 2) / (2 * sigma**2))
    return weights, sum((weights[s - 1] * keys[s - 1] for s in inside), torch.zeros(keys.shape[1]).double())
