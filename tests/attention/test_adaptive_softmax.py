"""The adaptive softmax against torch's and in loops; the adaptive embedding by its definition."""

import math

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.attention.adaptive_softmax import AdaptiveEmbedding, AdaptiveSoftmax

V, CUTOFFS, D, B, N = 31, (7, 12, 23), 17, 3, 5
F64 = torch.float64


def build(tie=None, **kwargs):
    embedding = AdaptiveEmbedding(V, D, **{"cutoffs": CUTOFFS, "div": 2, **kwargs})
    softmax = AdaptiveSoftmax(embedding, tie)
    randomise(nn.ModuleList([embedding, softmax]))
    return embedding, softmax


# embedding


@pytest.mark.parametrize("project_head", [False, True])
def test_each_token_is_looked_up_in_its_cluster(project_head):
    embedding, _ = build(project_head=project_head)
    ends = [0, *CUTOFFS, V]
    assert [table.weight.shape for table in embedding.tables] == [(7, 17), (5, 8), (11, 4), (8, 2)]
    y = embedding(torch.arange(V).view(1, V))[0]
    for token in range(V):
        i = max(c for c in range(4) if ends[c] <= token)
        vector = embedding.tables[i].weight[token - ends[i]]
        if i or project_head:
            vector = embedding.projections[i].weight @ vector
        assert_same(y[token], vector * math.sqrt(D))


def test_without_cutoffs_it_is_a_plain_table():
    embedding = randomise(AdaptiveEmbedding(V, D))
    tokens = torch.randint(V, (B, N))
    assert_same(embedding(tokens), embedding.tables[0].weight[tokens] * math.sqrt(D))
    assert [p.shape for p in embedding.parameters()] == [(V, D)]


def test_with_divisor_1_it_is_a_plain_table_in_pieces():
    """A difference from the paper: no projections, not even for the head."""
    embedding, plain = AdaptiveEmbedding(V, D, cutoffs=CUTOFFS, project_head=True), AdaptiveEmbedding(V, D)
    plain.tables[0].weight.data = torch.cat([table.weight.data for table in embedding.tables])
    tokens = torch.randint(V, (B, N))
    assert torch.equal(embedding(tokens), plain(tokens))
    assert sum(p.numel() for p in embedding.parameters()) == V * D


def test_gradients_reach_every_cluster_that_was_looked_up():
    embedding, _ = build(project_head=True)
    embedding(torch.tensor([[3, 8]])).sum().backward()
    for table, projection, used in zip(
        embedding.tables, embedding.projections, [True, True, False, False], strict=True
    ):
        assert bool(table.weight.grad.abs().sum() > 0) is used
        assert bool(projection.weight.grad.abs().sum() > 0) is used


# softmax


def torch_softmax(embedding, softmax):
    """torch's, with the same weights; it has no biases in the tails, and no projection of the head."""
    reference = nn.AdaptiveLogSoftmaxWithLoss(D, V, list(CUTOFFS), div_value=2.0, head_bias=True).double()
    reference.head.weight.data = torch.cat([embedding.tables[0].weight, softmax.clusters.weight])
    reference.head.bias.data = torch.cat([softmax.biases[0], softmax.clusters.bias])
    for i, (down, up) in enumerate(reference.tail, 1):
        down.weight.data, up.weight.data = softmax.projections[i].weight.T, embedding.tables[i].weight
        softmax.biases[i].data.zero_()
    return reference


@pytest.mark.parametrize("tie", [None, [False] * 4, [True, False, True, False]])
def test_equals_torch(tie, parity):
    embedding, softmax = build(tie)
    reference = torch_softmax(embedding, softmax)
    x, target = torch.randn(B * N, D, dtype=F64), torch.arange(B * N) * 2
    mine, theirs = [softmax(x), softmax.loss(x, target)], [reference.log_prob(x), -reference(x, target).output]
    tied = "nothing" if tie is None else ", ".join(str(i) for i, each in enumerate(tie) if each) or "no projection"
    parity("AdaptiveSoftmax", "torch.nn.AdaptiveLogSoftmaxWithLoss", f"tied: {tied}", mine, theirs)
    softmax.clusters.bias.data[0] += 1
    assert_differs(softmax(x), reference.log_prob(x))


@torch.no_grad()
def test_equals_loops_over_the_definition():
    embedding, softmax = build([False, True, True, False], project_head=True)
    x, ends = torch.randn(D, dtype=F64), [0, *CUTOFFS, V]
    scores = []
    for i in range(4):
        narrow = x @ softmax.projections[i].weight
        scores.append([narrow @ w + b for w, b in zip(embedding.tables[i].weight, softmax.biases[i], strict=True)])
        if i == 0:
            classes = [narrow @ w + b for w, b in zip(softmax.clusters.weight, softmax.clusters.bias, strict=True)]
    head = [math.exp(s) for s in scores[0] + classes]
    expected = [h / sum(head) for h in head[:7]]
    for i in range(1, 4):
        tail = [math.exp(s) for s in scores[i]]
        expected += [head[7 + i - 1] / sum(head) * t / sum(tail) for t in tail]
        assert len(expected) == ends[i + 1]
    assert_same(softmax(x).exp(), torch.tensor(expected, dtype=F64))


@pytest.mark.parametrize("cutoffs", [(), CUTOFFS])
def test_probabilities_sum_to_one_and_losses_are_picked_from_them(cutoffs):
    _, softmax = build(cutoffs=cutoffs)
    x, target = torch.randn(B, N, D, dtype=F64), torch.randint(V, (B, N))
    log_p = softmax(x)
    assert log_p.shape == (B, N, V)
    assert_same(log_p.exp().sum(-1), torch.ones(B, N, dtype=F64))
    assert_same(softmax.loss(x, target), -log_p.gather(-1, target[..., None])[..., 0])
    first = torch.zeros(B, N, dtype=torch.long)  # all in the head
    assert_same(softmax.loss(x, first), -log_p[..., 0])


def test_by_hand():
    """Two tokens and a cluster of two. x = 0, so all scores are biases: the head says 1/2, 1/4 and 1/4 for the rest."""
    softmax = AdaptiveSoftmax(AdaptiveEmbedding(4, 2, cutoffs=[2], div=2))
    softmax.biases[0].data = torch.tensor([0.5, 0.25]).log()
    softmax.clusters.bias.data = torch.tensor([0.25]).log()
    softmax.biases[1].data = torch.tensor([0.9, 0.1]).log()
    expected = torch.tensor([0.5, 0.25, 0.225, 0.025])
    assert torch.allclose(softmax(torch.zeros(2)).exp(), expected)
    assert torch.allclose(softmax.loss(torch.zeros(4, 2), torch.arange(4)), -expected.log())


def test_what_is_tied():
    embedding, softmax = build([False, True, True, True], project_head=True)
    mine, theirs = {id(p) for p in softmax.parameters()}, {id(p) for p in embedding.parameters()}
    tables = {id(table.weight) for table in embedding.tables}
    projections = {id(projection.weight) for projection in embedding.projections[1:]}
    assert mine & theirs == tables | projections
    assert softmax.projections[0].weight.shape == (D, D)
    embedding, default = build()
    assert all(a is b for a, b in zip(default.projections, embedding.projections, strict=True))
    _, own = build([False] * 4)
    assert len(list(own.parameters())) == 4 + 3 + 4 + 2  # tables, projections, biases, clusters


def test_the_clusters_begin_at_zero():
    """A difference from the paper."""
    softmax = AdaptiveSoftmax(AdaptiveEmbedding(V, D, cutoffs=CUTOFFS, div=2))
    assert not softmax.clusters.weight.any()
    assert not softmax.clusters.bias.any()


def test_a_cluster_without_targets_is_not_computed():
    _, softmax = build()
    x, target = torch.randn(B, N, D, dtype=F64), torch.full((B, N), 8)
    softmax.loss(x, target).sum().backward()
    assert softmax.biases[1].grad.any()
    assert not any(softmax.biases[i].grad.any() for i in (2, 3))


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"cutoffs=\[5, 3\] must ascend, all between 0 and n_tokens=9"):
        AdaptiveEmbedding(9, D, cutoffs=[5, 3])
    with pytest.raises(ValueError, match=r"cutoffs=\[9\] must ascend, all between 0 and n_tokens=9"):
        AdaptiveEmbedding(9, D, cutoffs=[9])
    with pytest.raises(ValueError, match=r"cutoffs=\[0\] must ascend"):
        AdaptiveEmbedding(9, D, cutoffs=[0])
    with pytest.raises(ValueError, match=r"div=5 leaves the last of 3 clusters less than 1 wide \(d_model=17\)"):
        AdaptiveEmbedding(9, D, cutoffs=[3, 5], div=5)
    with pytest.raises(ValueError, match="div=0 leaves"):
        AdaptiveEmbedding(9, D, div=0)
    with pytest.raises(ValueError, match=r"tie=\[True\] must have one entry for each of the 4 clusters"):
        build([True])
    embedding, _ = build()
    with pytest.raises(IndexError, match="2 tokens are not in 0 … 30"):
        embedding(torch.tensor([3, 31, -1]))
