"""A cached decoder against one that reads everything again, with beams and with prompts of different lengths."""

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.masks import Band
from papercode.decoders.generation import cached_generation, left_padded
from papercode.decoders.gpt import GPT
from papercode.decoders.gpt2 import GPT2
from papercode.decoding import beam_search, greedy_search
from papercode.sampling import sample

V, END = 29, 28


@pytest.fixture(params=[GPT, GPT2])
def model(request):
    return randomise(request.param(V, n_positions=23, d_model=14, n_heads=2, d_ff=19, n_layers=3)).eval()


def plain(model):
    return lambda tokens, parents: model(tokens)[:, -1]


PROMPT = torch.tensor([[3, 1, 4], [1, 5, 9]])


def test_steps_give_the_logits_of_the_whole_text(model):
    text = torch.randint(V, (2, 11))
    expected = model(text).detach()
    with torch.no_grad(), cached_generation(model, capacity=5) as step:
        for end in (4, 5, 6, 9, 11):  # also several new tokens at once, and more than there was room for
            assert_same(step(text[:, :end], torch.arange(2)), expected[:, end - 1])
            assert_differs(expected[:, end - 1], expected[:, end - 2])
            assert model.layers[0].attention.attend.capacity == 5
    assert type(model.layers[0].attention.attend).__name__ == "function"


def test_only_new_tokens_are_fed(model, monkeypatch):
    seen = []
    embed = model.embed
    monkeypatch.setattr(
        model, "embed", lambda tokens, start: (seen.append((tokens.shape[1], start)), embed(tokens, start))[1]
    )
    with torch.no_grad(), cached_generation(model) as step:
        greedy_search(step, PROMPT, end=-1, max_new=4)
    assert seen == [(3, 0), (1, 3), (1, 4), (1, 5)]


def test_searches_are_those_without_a_cache(model):
    with torch.no_grad(), cached_generation(model) as step:
        assert torch.equal(
            greedy_search(step, PROMPT, end=END, max_new=9), greedy_search(plain(model), PROMPT, end=END, max_new=9)
        )
    settings = {"end": END, "max_new": 7, "beam": 4}
    with torch.no_grad(), cached_generation(model, capacity=10) as step:
        tokens, scores = beam_search(step, PROMPT, **settings)
    expected = beam_search(plain(model), PROMPT, **settings)
    assert torch.equal(tokens, expected[0])
    assert_same(scores.double(), expected[1].double(), 1e-5)
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    with torch.no_grad(), cached_generation(model) as step:
        drawn = sample(step, PROMPT, end=END, max_new=9, generator=generators[0])
    assert torch.equal(drawn, sample(plain(model), PROMPT, end=END, max_new=9, generator=generators[1]))


PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]


@pytest.mark.parametrize("padding", [0, 17])
def test_prompts_of_different_lengths_continue_as_if_alone(model, padding):
    prompts, keep = left_padded(PROMPTS, padding)
    with torch.no_grad(), cached_generation(model, keep=keep) as step:
        together = greedy_search(step, prompts, end=END, max_new=6)
    with torch.no_grad(), cached_generation(model, keep=keep) as step:
        beams, _ = beam_search(step, prompts, end=END, max_new=6, beam=3)
    for row, prompt in enumerate(PROMPTS):
        alone = greedy_search(plain(model), torch.tensor([prompt]), end=END, max_new=6)[0]
        found = together[row, 5 - len(prompt) :]
        assert found[: len(alone)].tolist() == alone.tolist()
        best = beam_search(plain(model), torch.tensor([prompt]), end=END, max_new=6, beam=3)[0][0]
        assert beams[row, :, 5 - len(prompt) :][:, : best.shape[1]].tolist() == best.tolist()


def test_logits_of_padded_rows(model):
    prompts, keep = left_padded(PROMPTS)
    with torch.no_grad(), cached_generation(model, keep=keep) as step:
        logits = [step(prompts, torch.arange(3))]
        longer = torch.cat([prompts, torch.tensor([[7], [8], [9]])], 1)
        logits.append(step(longer, torch.arange(3)))
    for row, prompt in enumerate(PROMPTS):
        for found, text in zip(logits, (prompt, [*prompt, 7 + row])):
            assert_same(found[row], model(torch.tensor([text]))[0, -1])
    assert_differs(model(prompts)[1, -1], model(torch.tensor([PROMPTS[1]]))[0, -1])  # the padding seen
    hidden = model(prompts, Band(right=0, keep=keep))  # hidden, but positions counted from the padding
    assert_differs(hidden[1, -1], model(torch.tensor([PROMPTS[1]]))[0, -1])


def test_left_padded():
    tokens, keep = left_padded([[5, 6, 7], [8]], padding=4)
    assert tokens.tolist() == [[5, 6, 7], [4, 4, 8]]
    assert keep.tolist() == [[True] * 3, [False, False, True]]
    assert left_padded([[8], [6, 7]])[0].tolist() == [[0, 8], [6, 7]]


def test_errors(model):
    for prompts in ([], [[1], []]):
        with pytest.raises(ValueError, match="must hold one prompt or more, none of them empty"):
            left_padded(prompts)
    for row in ([True, True, False], [False, False, False], [True, False, True]):
        refused = pytest.raises(
            ValueError, match="keep must be False, …, True in every row: prompts are padded on the left"
        )
        with refused, cached_generation(model, keep=torch.tensor([[True, True, True], row])):
            pass
    refused = pytest.raises(ValueError, match=r"keep has shape \(1, 2\), but the prompts have \(2, 3\)")
    with cached_generation(model, keep=torch.tensor([[False, True]])) as step, refused:
        step(PROMPT, torch.arange(2))
    refused = pytest.raises(ValueError, match="tokens reach position 24, but n_positions=23")
    with cached_generation(model) as step, refused:
        greedy_search(step, PROMPT, end=-1, max_new=22)
