"""TextCNN: its equations with loops, what padding must not do, and what a sum of channels amounts to."""

import pytest
import torch
from torch import nn

from helpers import assert_differs, assert_same, randomise
from papercode.convolutional.text_cnn import TextCNN, max_norm_, random, static, tuned

V, K, C, M = 11, 5, 3, 7
WIDTHS = (1, 2, 4)


def sentences():
    """Of 6, 4, 3 and 1 words: the last two are shorter than the widest filter."""
    return torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 0, 0], [5, 8, 9, 0, 0, 0], [7, 0, 0, 0, 0, 0]])


def network(channels=2, **settings):
    model = TextCNN([random(V, K) for _ in range(channels)], C, widths=WIDTHS, n_maps=M, **settings)
    randomise(model, std=0.7).eval()
    for channel in model.channels:
        channel.weight.data[0] = 0
    return model


def by_loops(model, words):
    """z of one sentence, [@kim2014convolutional, Eqs. 2 and 3], each channel apart."""
    z = []
    for f in model.filters:
        width = f.kernel_size[0]
        filled = words + [0] * (width - len(words))
        for m in range(M):
            c = []
            for i in range(len(filled) - width + 1):
                total = f.bias[m].item()
                for channel in model.channels:
                    for j in range(width):
                        for k in range(K):
                            total += f.weight[m, k, j].item() * channel.weight[filled[i + j], k].item()
                c.append(max(total, 0.0))
            z.append(max(c))
    return z


@pytest.mark.parametrize("channels", [1, 2])
def test_equals_the_equations(channels, parity):
    model, tokens = network(channels), sentences()
    words = [[t for t in row if t] for row in tokens.tolist()]
    expected = torch.tensor([by_loops(model, row) for row in words], dtype=torch.float64)
    z = model.features(tokens)
    parity("TextCNN", "the equations, with loops", f"{channels} channels, filters of 1, 2, 4 words", z, expected)
    logits = expected @ model.output.weight.T + model.output.bias
    assert_same(model(tokens), logits)
    assert_differs(model(tokens.flip(0)), logits)


def test_by_hand():
    """One filter that adds two neighbours: of 1, 5, 2 the largest sum is 7; minus the bias 3 makes 4."""
    model = TextCNN([static(torch.tensor([[0.0], [1.0], [5.0], [2.0]]))], 2, widths=[2], n_maps=1)
    model.filters[0].weight.data.fill_(1)
    model.filters[0].bias.data.fill_(-3)
    assert model.features(torch.tensor([[1, 2, 3]])).item() == 4
    assert model.features(torch.tensor([[1, 1, 1]])).item() == 0  # 2 - 3 is cut by the ReLU


def test_equals_the_usual_two_dimensional_convolution(parity):
    """As most implementations have it: an image of n by k, with filters k wide. Without padding, nothing differs."""
    model, tokens = network(1), sentences()[:1]
    image = model.channels[0](tokens)[:, None]
    pooled = []
    for f in model.filters:
        twin = nn.Conv2d(1, M, (f.kernel_size[0], K)).double()
        twin.weight.data, twin.bias.data = f.weight.transpose(1, 2)[:, None].detach(), f.bias.detach()
        pooled.append(twin(image).relu().amax((2, 3)))
    parity(
        "TextCNN",
        "torch.nn.Conv2d over the sentence as an image",
        "no padding",
        model.features(tokens),
        torch.cat(pooled, 1),
    )


def test_padding_changes_nothing():
    model, tokens = network(), sentences()
    for row in tokens:
        alone = row[row != 0][None]
        assert_same(model(alone), model(nn.functional.pad(alone, (0, 9))))
    assert_same(model(tokens[:, :6]), torch.cat([model(row[row != 0][None]) for row in tokens]))


def test_windows_of_padding_alone_would_compete():
    """As in the paper, where all sentences have one length: a filter that nothing excites gives its bias."""
    model = network(1)
    for f in model.filters:
        f.weight.data.neg_().clamp_(max=-0.1)
        f.bias.data.fill_(0.5)
    model.channels[0].weight.data[1:].abs_().add_(1)
    tokens = sentences()
    model_of_the_paper = network(1)
    model_of_the_paper.load_state_dict(model.state_dict())
    model_of_the_paper.pool = lambda c, real: c.amax(-1)
    assert (model.features(tokens[3:, :1])[:, :M] == 0).all()  # one word, width 1: the filter is silent
    assert_differs(model_of_the_paper.features(tokens[3:]), model.features(tokens[3:]), by=0.4)
    assert_same(model_of_the_paper.features(tokens[3:])[:, :M], torch.full((1, M), 0.5, dtype=torch.float64))


def test_order_matters_within_a_filter_only():
    model, words = network(), sentences()[:1]
    turned = words.flip(1)
    assert_same(model.features(words)[:, :M], model.features(turned)[:, :M])  # filters of one word
    assert_differs(model.features(words)[:, M:], model.features(turned)[:, M:])


@pytest.mark.parametrize(
    ("make", "learns"),
    [
        (lambda e: [random(V, K)], [True]),
        (lambda e: [static(e)], [False]),
        (lambda e: [tuned(e)], [True]),
        (lambda e: [static(e), tuned(e)], [False, True]),
    ],
    ids=["rand", "static", "non-static", "multichannel"],
)
def test_variants_differ_in_what_is_trained(make, learns):
    vectors = torch.randn(V, K)
    given = vectors.clone()
    model = TextCNN(make(vectors), C, widths=WIDTHS, n_maps=M)
    before = [channel.weight.detach().clone() for channel in model.channels]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    nn.functional.cross_entropy(model(sentences()), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    moved = [not torch.equal(channel.weight, old) for channel, old in zip(model.channels, before)]
    assert moved == learns
    assert all((channel.weight[0] == 0).all() for channel in model.channels)  # the padding
    assert torch.equal(vectors, given)  # what the caller gave is the caller's


def test_vectors_are_read_and_padding_is_zeroed():
    vectors = torch.randn(V, K)
    for channel in (static(vectors), tuned(vectors)):
        assert torch.equal(channel.weight[1:], vectors[1:])
        assert (channel.weight[0] == 0).all()
    weight = random(1000, 20, a=0.1).weight
    assert 0.0999 < weight.max() <= 0.1
    assert -0.1 <= weight.min() < -0.0999
    assert (weight[0] == 0).all()
    assert 0.2499 < random(1000, 20).weight.max() <= 0.25


def test_two_channels_are_one_that_starts_doubled():
    """The filters are shared and linear, so that training cannot tell them apart."""
    torch.manual_seed(1)
    vectors, labels = torch.randn(V, K, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    two = TextCNN([static(vectors), tuned(vectors)], C, widths=WIDTHS, n_maps=M, dropout=0.0).double()
    one = TextCNN([tuned(2 * vectors)], C, widths=WIDTHS, n_maps=M, dropout=0.0).double()
    plain = TextCNN([tuned(vectors)], C, widths=WIDTHS, n_maps=M, dropout=0.0).double()
    for model in (one, plain):
        model.filters.load_state_dict(two.filters.state_dict())
        model.output.load_state_dict(two.output.state_dict())
    for model in (two, one, plain):
        optimizer = torch.optim.Adadelta([p for p in model.parameters() if p.requires_grad], lr=1.0)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(sentences()), labels).backward()
            optimizer.step()
    assert_same(two(sentences()), one(sentences()))
    assert_same(two.channels[1].weight + vectors.index_fill(0, torch.tensor([0]), 0), one.channels[0].weight)
    assert_differs(two(sentences()), plain(sentences()))


def test_max_norm_scales_only_what_is_longer():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [0.0, -3.0]])
    max_norm_(weight)
    assert_same(weight, torch.tensor([[1.8, 2.4], [0.3, 0.4], [0.0, 0.0], [0.0, -3.0]]), 1e-6)
    max_norm_(weight, s=0.5)
    assert_same(weight[:2], torch.tensor([[0.3, 0.4], [0.3, 0.4]]), 1e-6)


def test_max_norm_after_each_step():
    model = network(dropout=0.0)
    optimizer = torch.optim.SGD(model.output.parameters(), lr=100.0)
    optimizer.register_step_post_hook(lambda *_: max_norm_(model.output.weight))
    nn.functional.cross_entropy(model(sentences()), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    norms = model.output.weight.norm(dim=1)
    assert norms.max() <= 3 + 1e-9
    assert norms.max() > 3 - 1e-9


def test_dropout_acts_on_the_pooled_features_in_training_only():
    model = network(dropout=0.5)
    assert torch.equal(model(sentences()), model(sentences()))
    model.train()
    seen = []
    model.output.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(sentences())
    z = model.features(sentences())
    dropped = seen[0] == 0
    assert_same(seen[0][~dropped], 2 * z[~dropped])
    assert 0.2 < dropped[z > 0].double().mean() < 0.8


def test_one_batch_can_be_overfitted():
    torch.manual_seed(0)
    model, labels = TextCNN([random(V, K)], C, widths=WIDTHS, n_maps=M, dropout=0.0), torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(sentences()), labels).backward()
        optimizer.step()
    assert (model(sentences()).argmax(1) == labels).all()


def test_full_size():
    """Windows of 3, 4, 5 words, 100 maps each, vectors of 300: 360,300 parameters in the convolution."""
    with torch.device("meta"):
        model = TextCNN([nn.Embedding(18_765, 300)], 2)
    assert sum(p.numel() for p in model.filters.parameters()) == 360_300
    assert model.output.in_features == 300
    assert model.dropout.p == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: TextCNN([], 2), "channels have the sizes"),
        (lambda: TextCNN([random(5, 3), random(5, 4)], 2), r"\(5, 3\), \(5, 4\)"),
        (lambda: TextCNN([random(5, 3)], 2, widths=[]), "widths="),
        (lambda: TextCNN([random(5, 3)], 2, widths=[0, 3]), r"widths=\(0, 3\)"),
        (lambda: network()(torch.tensor([[0, 0]])), "begin with a word"),
        (lambda: network()(torch.tensor([[1, 0, 2]])), "padding"),
        (lambda: network()(torch.zeros(2, 0, dtype=torch.long)), "begin with a word"),
        (lambda: max_norm_(torch.ones(2, 2), 0.0), "s=0.0 must be positive"),
    ],
)
def test_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
