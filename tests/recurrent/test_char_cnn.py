"""The character CNN: loops over windows, and independence of what stands beside a word."""

import math

import pytest
import torch

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.recurrent.char_cnn import PAD, CharCNN

CHARS, D, F = 11, 5, 7


def by_loops(model, chars):
    """One word, a list of numbers without padding."""
    window = model.convolution.kernel_size[0]
    side = [torch.zeros(D, dtype=torch.float64)] * (window // 2)
    vectors = [*side, *model.embed.weight[chars], *side]
    answers = []
    for i in range(len(chars)):
        answer = model.convolution.bias.clone()
        for offset in range(window):
            answer = answer + model.convolution.weight[:, :, offset] @ vectors[i + offset]
        answers.append(answer)
    return torch.stack([max(column).tanh() for column in torch.stack(answers).T])


@pytest.mark.parametrize("window", [1, 3, 5])
def test_equals_the_equations(window, parity):
    model = randomise(CharCNN(CHARS, d=D, n_filters=F, window=window))
    words = [[3, 1, 4, 1, 5], [2], [10, 9, 8]]
    chars = torch.zeros(3, 6, dtype=torch.long)
    for row, word in zip(chars, words):
        row[: len(word)] = torch.tensor(word)
    found = model(chars)
    expected = torch.stack([by_loops(model, word) for word in words])
    parity("CharCNN", "the equations, with loops", f"window {window}, padding", found, expected)
    if window > 1:
        assert_differs(model(chars[:1, :5].flip(1)), found[:1])


def test_padding_and_company_change_nothing():
    model = randomise(CharCNN(CHARS, d=D, n_filters=F))
    word = torch.tensor([[3, 1, 4]])
    alone = model(word)
    longer = torch.tensor([[3, 1, 4, 0, 0, 0], [9, 9, 9, 9, 9, 9]])
    assert_same(model(longer)[:1], alone)
    assert_same(model(longer.view(1, 2, 6))[0, :1], alone)
    # though the vector that stands for padding is not zero here
    assert (model.embed.weight[PAD] != 0).all()
    assert_differs(model(torch.tensor([[3, 1, 4, 2]])), alone)


def test_a_word_without_characters_is_zero():
    model = randomise(CharCNN(CHARS, d=D, n_filters=F))
    chars = torch.tensor([[[1, 2], [0, 0]], [[0, 0], [3, 0]]])
    found = model(chars)
    assert found.shape == (2, 2, F)
    assert (found[0, 1] == 0).all()
    assert (found[1, 0] == 0).all()
    assert (found[1, 1] != 0).all()
    found.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert (model.embed.weight.grad[PAD] == 0).all()


def test_very_negative_answers_are_no_missing_word():
    model = CharCNN(CHARS, d=D, n_filters=F)
    torch.nn.init.constant_(model.convolution.bias, -100.0)
    assert (model(torch.tensor([[1, 2]])) == -1).all()


def test_dropout_acts_on_the_characters():
    model = CharCNN(CHARS, d=D, n_filters=F, dropout=0.5)
    chars = torch.full((1, 1), 3)
    with torch.no_grad():
        model.embed.weight[3] = 1
    seen = []
    model.convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(20):
        model(chars)
    assert {value.item() for value in torch.cat(seen).unique()} == {0.0, 2.0}
    model.eval()
    model(chars)
    assert (seen[-1] == 1).all()


def test_order_matters_within_windows_only():
    """A maximum over windows forgets where they stood."""
    model = randomise(CharCNN(CHARS, d=D, n_filters=F, window=1))
    chars = torch.tensor([[1, 2, 3, 4]])
    assert not leaks(model, chars, chars.flip(1), torch.ones(1, F, dtype=torch.bool))


def test_start():
    model = CharCNN(CHARS)
    assert model.embed.weight.shape == (CHARS, 30)
    assert model.convolution.weight.shape == (30, 30, 3)
    assert (model.embed.weight[PAD] == 0).all()
    bound = math.sqrt(3 / 30)
    assert 0.9 * bound < model.embed.weight.abs().max() <= bound
    bound = math.sqrt(6 / (30 * 3 + 30 * 3))
    assert 0.9 * bound < model.convolution.weight.abs().max() <= bound
    assert (model.convolution.bias == 0).all()


def test_an_even_window():
    with pytest.raises(ValueError, match="window=4 must be odd"):
        CharCNN(CHARS, window=4)
