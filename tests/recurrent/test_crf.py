"""CRFs: pytorch-crf, the enumeration of all paths, what is forbidden, what padding must not do."""

import math
from itertools import pairwise, product

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.recurrent.crf import Allowed, LinearChainCRF, PairCRF
from papercode.recurrent.crf_paths import path_score

torchcrf = pytest.importorskip("torchcrf")

B, N, K = 5, 7, 3
LENGTHS = torch.tensor([7, 1, 4, 2, 6])
# reductions of pytorch-crf, of the loss of each row and the number of steps
REDUCTIONS = {
    "none": lambda loss, steps: -loss,
    "sum": lambda loss, steps: -loss.sum(),
    "mean": lambda loss, steps: -loss.mean(),
    "token_mean": lambda loss, steps: -loss.sum() / steps,
}


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def pair(n_tags=K, seed=0):
    """Ours and pytorch-crf's with the same random parameters."""
    ours, theirs = randomise(LinearChainCRF(n_tags), seed, std=1.0), torchcrf.CRF(n_tags, batch_first=True).double()
    with torch.no_grad():
        theirs.transitions.copy_(ours.transitions)
        theirs.start_transitions.copy_(ours.start)
        theirs.end_transitions.copy_(ours.end)
    return ours, theirs


def matching(ours, theirs):
    return zip(
        (ours.transitions, ours.start, ours.end), (theirs.transitions, theirs.start_transitions, theirs.end_transitions)
    )


def mask(lengths, n=N):
    return torch.ones(1, n, dtype=torch.bool) if lengths is None else torch.arange(n) < lengths[:, None]


@pytest.fixture(params=["full", "padding"])
def lengths(request):
    return LENGTHS if request.param == "padding" else None


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_likelihood_and_gradients_equal_pytorch_crf(reduction, lengths, parity):
    ours, theirs = pair()
    scores, tags = double(B, N, K), torch.randint(K, (B, N))
    mine, other = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    steps = B * N if lengths is None else lengths.sum()
    one = REDUCTIONS[reduction](ours(mine, tags, lengths), steps)
    two = theirs(other, tags, mask(lengths).expand(B, N), reduction=reduction)
    weights = torch.rand(one.shape, dtype=torch.float64)
    (one * weights).sum().backward()
    (two * weights).sum().backward()
    padded = "full rows" if lengths is None else "padding"
    gradients = [(mine.grad, other.grad)] + [(p.grad, q.grad) for p, q in matching(ours, theirs)]
    name = f"log-likelihood, {reduction}, {padded}, with gradients"
    parity("LinearChainCRF", "torchcrf.CRF", name, *zip((one, two), *gradients))
    assert all(gradient.abs().max() > 1e-3 for _, gradient in gradients)


def test_the_loss_notices_each_parameter():
    ours, _ = pair()
    scores, tags = double(B, N, K), torch.randint(K, (B, N))
    before = ours(scores, tags)
    for parameter in ours.parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(parameter.roll(1, 0))
        assert_differs(ours(scores, tags), before)
        with torch.no_grad():
            parameter.copy_(kept)
    transposed = LinearChainCRF(K).double()
    transposed.load_state_dict(ours.state_dict() | {"transitions": ours.transitions.detach().T.contiguous()})
    assert_differs(transposed(scores, tags), before)


@pytest.mark.parametrize(("b", "n", "k"), [(B, N, K), (2, 1, 5), (3, 11, 1), (7, 13, 17)])
def test_paths_equal_pytorch_crf(b, n, k, parity):
    ours, theirs = pair(k)
    scores = double(b, n, k)
    for lengths in (None, torch.randint(1, n + 1, (b,))):
        rows = [n] * b if lengths is None else lengths.tolist()
        paths, best = ours.decode(scores, lengths)
        expected = theirs.decode(scores, mask(lengths, n).expand(b, n))
        assert [path[:row].tolist() for path, row in zip(paths, rows)] == expected
        assert all(not path[row:].any() for path, row in zip(paths, rows))
        padded = torch.tensor([path + [0] * (n - len(path)) for path in expected])
        score = theirs._compute_score(scores.transpose(0, 1), padded.T, mask(lengths, n).expand(b, n).T)
        parity(
            "LinearChainCRF",
            "torchcrf.CRF",
            f"score of the best path, {k} tags, {'full rows' if lengths is None else 'padding'}",
            best,
            score,
        )
        assert_same(ours.score(scores, paths, lengths), best)


# all paths, one by one


def scored(crf, scores, path):
    """The score of a path of one sentence (n s), with loops."""
    if isinstance(crf, PairCRF):
        table = scores[: len(path)].view(len(path), crf.n_tags + 1, crf.n_tags)
        return sum(table[t, path[t - 1] if t else crf.n_tags, tag] for t, tag in enumerate(path))
    score = crf.start[path[0]] + crf.end[path[-1]] + sum(scores[t, tag] for t, tag in enumerate(path))
    return score + sum(crf.transitions[before, after] for before, after in pairwise(path))


def legal(allowed, path):
    return allowed is None or bool(
        allowed.start[path[0]]
        and allowed.end[path[-1]]
        and all(allowed.transitions[before, after] for before, after in pairwise(path))
    )


SOME = Allowed(
    torch.tensor([[True, True, False], [False, True, True], [True, False, False]]),
    torch.tensor([True, False, True]),
    torch.tensor([True, True, False]),
)


@pytest.mark.parametrize("allowed", [None, SOME], ids=["free", "constrained"])
@pytest.mark.parametrize("kind", [LinearChainCRF, PairCRF])
def test_equals_the_enumeration_of_all_paths(kind, allowed, parity):
    crf = randomise(kind(K, allowed=allowed), std=1.0)
    lengths = torch.tensor([5, 1, 3])
    scores = double(3, 5, crf.n_scores)
    found = crf.log_partition(scores, lengths), crf.decode(scores, lengths)[1], crf.marginals(scores, lengths)
    logs, bests, marginals = [], [], torch.zeros(3, 5, K, dtype=torch.float64)
    for i, n in enumerate(lengths.tolist()):
        paths = [path for path in product(range(K), repeat=n) if legal(allowed, path)]
        values = torch.stack([scored(crf, scores[i], path) for path in paths]).detach()
        logs.append(values.logsumexp(0))
        bests.append(values.max())
        assert crf.decode(scores, lengths)[0][i, :n].tolist() == list(paths[values.argmax()])
        for path, probability in zip(paths, (values - logs[-1]).exp()):
            for t, tag in enumerate(path):
                marginals[i, t, tag] += probability
        tags = torch.tensor([path + (0,) * (5 - n) for path in paths])
        some, steps = scores[i : i + 1].expand(len(paths), -1, -1), torch.full((len(paths),), n)
        losses = crf(some, tags, steps)
        assert_same(losses, logs[-1] - values)
        assert_same((-losses).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    name = f"log Z, best score and marginals, {'all paths' if allowed is None else 'forbidden transitions'}"
    expected = torch.stack(logs), torch.stack(bests), marginals
    parity(kind.__name__, "the enumeration of all paths", name, [x.detach() for x in found], expected)
    if allowed is not None:
        free = kind(K).double()
        free.load_state_dict(crf.state_dict())
        assert_differs(free.log_partition(scores, lengths), found[0])


def test_by_hand():
    """Two words, two tags; the four paths score 1 + 0, 1 + 2 + 3, 0 + 0, 0 + 3."""
    crf = LinearChainCRF(2)
    for parameter in crf.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        crf.transitions[0, 1] = 2
    scores = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]])
    assert crf.log_partition(scores).item() == pytest.approx(math.log(math.e + math.e**6 + 1 + math.e**3))
    path, score = crf.decode(scores)
    assert path.tolist() == [[0, 1]]
    assert score.item() == 6
    assert crf(scores, path).item() == pytest.approx(math.log(1 + math.exp(-5) + math.exp(-6) + math.exp(-3)))


@pytest.mark.parametrize("kind", [LinearChainCRF, PairCRF])
def test_no_probability_is_left_for_what_is_forbidden(kind):
    crf = randomise(kind(K, allowed=SOME), std=1.0)
    scores, free = double(B, N, crf.n_scores), randomise(kind(K), std=1.0)
    free.load_state_dict(crf.state_dict())  # the constraints are no parameters
    paths, other = crf.decode(scores)[0], free.decode(scores)[0]
    assert all(legal(SOME, path) for path in paths.tolist())
    assert not all(legal(SOME, path) for path in other.tolist())
    forbidden = torch.tensor([[1] + [0] * (N - 1)]).expand(B, -1)
    assert (crf(scores, forbidden) == math.inf).all()
    assert free(scores, forbidden).isfinite().all()
    assert (crf.score(scores, forbidden) == -math.inf).all()


def test_gradients_of_what_is_forbidden_are_zero():
    crf = randomise(LinearChainCRF(K, allowed=SOME), std=1.0)
    scores = double(B, N, K).requires_grad_()
    tags = crf.decode(scores)[0]
    crf(scores, tags, LENGTHS.clamp(min=N)).sum().backward()
    for parameter, which in zip((crf.transitions, crf.start, crf.end), SOME):
        assert (parameter.grad[~which] == 0).all()
        assert (parameter.grad[which] != 0).all()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("kind", [LinearChainCRF, PairCRF])
@pytest.mark.parametrize("rubbish", [100.0, math.inf, math.nan])
def test_padding_has_no_influence(kind, rubbish):
    crf = randomise(kind(K), std=1.0)
    scores, tags = double(B, N, crf.n_scores), torch.randint(K, (B, N))
    changed, gone = scores.clone(), ~mask(LENGTHS)
    changed[gone] = rubbish
    others = tags.masked_fill(gone, -100)
    results = []
    for x, y in ((scores, tags), (changed, others)):
        x.requires_grad_()
        crf.zero_grad()
        loss = crf(x, y, LENGTHS)
        loss.sum().backward()
        results.append([loss, *crf.decode(x, LENGTHS), crf.marginals(x, LENGTHS), x.grad])
        assert (x.grad[gone] == 0).all()
        assert (results[-1][3][gone] == 0).all()
    for one, two in zip(*results):
        assert torch.equal(one, two)
    # nor does its amount
    for i, n in enumerate(LENGTHS.tolist()):
        assert_same(crf(scores[i : i + 1, :n], tags[i : i + 1, :n]), results[0][0][i : i + 1])


def test_the_gradient_of_the_loss_is_marginals_minus_truth():
    crf = randomise(LinearChainCRF(K), std=1.0)
    scores, tags = double(B, N, K).requires_grad_(), torch.randint(K, (B, N))
    crf(scores, tags).sum().backward()
    assert_same(scores.grad, crf.marginals(scores) - nn.functional.one_hot(tags, K))
    assert_same(crf.marginals(scores).sum(-1), torch.ones(B, N, dtype=torch.float64))


def test_without_transitions_it_is_a_softmax_at_each_step():
    crf = LinearChainCRF(K).double()
    for parameter in crf.parameters():
        nn.init.zeros_(parameter)
    scores, tags = double(B, N, K), torch.randint(K, (B, N))
    expected = nn.functional.cross_entropy(scores.mT, tags, reduction="none").sum(1)
    assert_same(crf(scores, tags), expected)
    assert_same(crf.marginals(scores), scores.softmax(-1))
    assert torch.equal(crf.decode(scores)[0], scores.argmax(-1))
    nn.init.normal_(crf.transitions)
    assert_differs(crf(scores, tags), expected)


def test_the_pairs_hold_the_chain():
    """Emissions and transitions are pairs whose score is a sum; a pair that is no sum is more."""
    chain, pairs = randomise(LinearChainCRF(K), std=1.0), PairCRF(K)
    nn.init.zeros_(chain.end)
    emissions, tags = double(B, N, K), torch.randint(K, (B, N))
    before = torch.cat([chain.transitions, chain.start[None]])
    scores = (emissions[:, :, None] + before).flatten(2).detach()
    assert_same(pairs(scores, tags, LENGTHS), chain(emissions, tags, LENGTHS))
    assert torch.equal(pairs.decode(scores, LENGTHS)[0], chain.decode(emissions, LENGTHS)[0])
    assert_differs(pairs(scores.roll(1, -1), tags, LENGTHS), chain(emissions, tags, LENGTHS))


def test_float32_is_as_good_as_float32_gets():
    crf = LinearChainCRF(K)
    scores, tags = torch.randn(B, N, K), torch.randint(K, (B, N))
    double = LinearChainCRF(K).double()
    double.load_state_dict(crf.state_dict())
    loss = crf(scores, tags)
    assert loss.dtype == torch.float32
    assert crf.log_partition(scores).dtype == crf.score(scores, tags).dtype == torch.float32
    assert crf.marginals(scores).dtype == torch.float32
    assert_same(loss.double(), double(scores.double(), tags), 1e-6)


def test_scores_may_be_bfloat16_the_loss_is_not():
    crf, scores, tags = LinearChainCRF(K), torch.randn(B, N, K).bfloat16(), torch.randint(K, (B, N))
    loss = crf(scores, tags, LENGTHS)
    assert loss.dtype == torch.float32
    assert_same(loss, crf(scores.float(), tags, LENGTHS))
    assert_same(crf.decode(scores, LENGTHS)[1], crf.decode(scores.float(), LENGTHS)[1])
    assert_differs(loss.bfloat16().float(), loss, 1e-4)


def test_a_certain_path_costs_nothing_and_never_less():
    """In float32, log Z and the score would differ by rounding."""
    crf, tags = LinearChainCRF(K), torch.randint(K, (B, N))
    scores = 30 * nn.functional.one_hot(tags, K) + torch.rand(B, N, K)
    assert (crf(scores, tags) >= 0).all()
    assert (crf(scores, tags) < 1e-9).all()


def test_marginals_and_paths_in_inference_mode():
    crf = LinearChainCRF(K)
    scores = torch.randn(B, N, K)
    expected = crf.marginals(scores)
    assert not expected.requires_grad
    with torch.inference_mode():
        assert torch.equal(crf.marginals(scores * 1), expected)
        crf.decode(scores * 1)
        crf(scores, torch.zeros(B, N, dtype=torch.long))


@pytest.mark.parametrize("kind", [LinearChainCRF, PairCRF])
def test_a_sentence_that_no_path_fits(kind):
    """Tag 1 alone may stand first and none may follow it."""
    nothing = Allowed(torch.zeros(2, 2, dtype=torch.bool), torch.tensor([False, True]), torch.tensor([True, True]))
    crf = kind(2, allowed=nothing)
    assert crf.log_partition(torch.randn(1, 1, crf.n_scores)).isfinite()
    assert crf.log_partition(torch.randn(1, 2, crf.n_scores)).item() == -math.inf
    assert crf.decode(torch.randn(1, 2, crf.n_scores))[1].item() == -math.inf


def test_it_learns_a_path():
    crf, scores = LinearChainCRF(K), nn.Parameter(torch.zeros(1, N, K))
    tags = torch.randint(K, (1, N))
    optimizer = torch.optim.SGD([scores, *crf.parameters()], 0.5)
    for _ in range(50):
        optimizer.zero_grad()
        crf(scores, tags).sum().backward()
        optimizer.step()
    assert torch.equal(crf.decode(scores)[0], tags)
    assert crf(scores, tags).item() < 0.5


def test_start():
    crf = LinearChainCRF(11)
    assert all(0.05 < parameter.abs().max() <= 0.1 for parameter in crf.parameters())
    assert sum(parameter.numel() for parameter in crf.parameters()) == 11 * 11 + 2 * 11
    assert crf.n_scores == 11
    assert PairCRF(11).n_scores == 12 * 11
    assert list(PairCRF(11).parameters()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda crf: LinearChainCRF(0), "n_tags=0 must be at least 1"),
        (lambda crf: LinearChainCRF(4, allowed=SOME), r"allowed has the shapes \[\(3, 3\), \(3,\), .*, but n_tags=4"),
        (lambda crf: crf.decode(torch.zeros(2, 5, 4)), r"scores \(2, 5, 4\) must have n_scores=3 at each step"),
        (lambda crf: crf.decode(torch.zeros(2, 0, 3)), r"emissions \(2, 0, 3\) has no steps"),
        (lambda crf: crf.log_partition(torch.zeros(2, 0, 3)), r"emissions \(2, 0, 3\) has no steps"),
        (
            lambda crf: path_score(crf.potentials(torch.zeros(2, 5, 3)), torch.zeros(2, 4, dtype=torch.long)),
            r"tags \(2, 4\) must be \(b, n\) = \(2, 5\)",
        ),
        (
            lambda crf: crf.decode(torch.zeros(2, 5, 3), torch.tensor([5, 0])),
            r"lengths=\[5, 0\] must be 2 numbers from 1 to n=5",
        ),
        (
            lambda crf: crf.log_partition(torch.zeros(2, 5, 3), torch.tensor([6, 1])),
            r"lengths=\[6, 1\] must be 2 numbers from 1 to n=5",
        ),
    ],
)  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(LinearChainCRF(3))
