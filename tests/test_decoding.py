"""Beam search against brute force over all sequences, against greedy search, and against transformers."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from helpers import assert_same, randomise
from papercode.decoding import beam_search, greedy_search, length_penalty

END = 0


class Chain(nn.Module):
    """A made-up language model: each token depends on all before it, through a small recurrent net."""

    def __init__(self, n_tokens, width=5):
        super().__init__()
        self.embedding, self.cell = nn.Embedding(n_tokens, width), nn.GRUCell(width, width)
        self.output = nn.Linear(width, n_tokens)

    def forward(self, tokens):
        state = torch.zeros(len(tokens), self.cell.hidden_size, dtype=self.output.weight.dtype)
        for token in tokens.T:
            state = self.cell(self.embedding(token), state)
        return self.output(state)

    def step(self, tokens, parents):
        return self(tokens)

    def stateful(self, rows):
        """The same model, one token at a time."""
        state = torch.zeros(rows, self.cell.hidden_size, dtype=self.output.weight.dtype)

        def step(tokens, parents):
            nonlocal state
            state = self.cell(self.embedding(tokens[:, -1]), state[parents])
            return self.output(state)

        return step


def chain(n_tokens, seed=0):
    return randomise(Chain(n_tokens), seed, std=1.5)


def every_sequence(n_tokens, max_new):
    """All that end in END, and all that are cut off at max_new."""
    others = [token for token in range(n_tokens) if token != END]
    for length in range(max_new):
        yield from ([*body, END] for body in product(others, repeat=length))
    yield from map(list, product(others, repeat=max_new))


def score(model, prompt, sequence, penalty):
    tokens, total = list(prompt), 0.0
    for token in sequence:
        total += model(torch.tensor([tokens])).log_softmax(-1)[0, token].item()
        tokens.append(token)
    return total / penalty(len(sequence))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_what_brute_force_finds(seed, alpha):
    model, prompt, n_tokens, max_new = chain(3, seed), [1, 2], 3, 4

    def penalty(length):
        return length_penalty(length, alpha)

    scored = sorted(((score(model, prompt, s, penalty), s) for s in every_sequence(n_tokens, max_new)), reverse=True)
    assert len(scored) == 1 + 2 + 4 + 8 + 16
    tokens, scores = beam_search(
        model.step, torch.tensor([prompt]), end=END, max_new=max_new, beam=len(scored), penalty=penalty
    )
    assert_same(scores[0], torch.tensor([s for s, _ in scored], dtype=torch.float64))
    fill = [[*prompt, *s, *[END] * (max_new - len(s))] for _, s in scored]
    assert tokens[0].tolist() == fill


def test_a_wider_beam_may_win_where_greedy_search_loses():
    """Token 1 looks best at first (0.6), but then nothing is likely; after token 2 (0.4) the end is certain."""
    table = {(): [1e-9, 0.6, 0.4], (1,): [0.34, 0.33, 0.33], (2,): [1.0, 1e-9, 1e-9]}

    def step(tokens, parents):
        rows = [table.get(tuple(row[1:]), [1.0, 1e-9, 1e-9]) for row in tokens.tolist()]
        return torch.tensor(rows).log()

    prompt = torch.tensor([[1]])
    assert greedy_search(step, prompt, end=END, max_new=5).tolist() == [[1, 1, END]]
    tokens, scores = beam_search(step, prompt, end=END, max_new=5, beam=2, penalty=lambda length: 1.0)
    assert tokens[0, 0, :3].tolist() == [1, 2, END]
    assert scores.exp()[0, 0].item() == pytest.approx(0.4)
    assert scores.exp()[0, 1].item() == pytest.approx(0.6 * 0.34)


@pytest.mark.parametrize("seed", [0, 2, 13])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 5.0])
def test_a_beam_of_one_is_greedy_search(seed, alpha):
    model, prompt = chain(7, seed), torch.randint(7, (11, 2))
    greedy = greedy_search(model.step, prompt, end=END, max_new=9)
    tokens, _ = beam_search(
        model.step, prompt, end=END, max_new=9, beam=1, penalty=lambda length: length_penalty(length, alpha)
    )
    assert torch.equal(tokens[:, 0], greedy)
    assert (greedy[:, 2:] == END).any()
    assert not (greedy[:, -1] == END).all()  # some ended, some were cut off


def test_greedy_takes_the_best_and_stops_at_the_end():
    model, prompt = chain(7), torch.randint(7, (5, 2))
    tokens = greedy_search(model.step, prompt, end=END, max_new=9)
    for row, start in zip(tokens.tolist(), prompt.tolist(), strict=True):
        expected = start
        while len(expected) < len(row) and END not in expected[2:]:
            expected = [*expected, model(torch.tensor([expected])).argmax().item()]
        assert row == expected + [END] * (len(row) - len(expected))


@pytest.mark.parametrize("beam", [1, 3, 5])
def test_a_batch_equals_its_sentences_one_by_one(beam):
    model, prompt = chain(7, seed=3), torch.randint(1, 7, (11, 2))
    tokens, scores = beam_search(model.step, prompt, end=END, max_new=8, beam=beam)
    for i in range(len(prompt)):
        alone, alone_scores = beam_search(model.step, prompt[i : i + 1], end=END, max_new=8, beam=beam)
        assert_same(scores[i], alone_scores[0])
        n = alone.shape[-1]
        assert torch.equal(tokens[i, :, :n], alone[0])
        assert (tokens[i, :, n:] == END).all()


def test_scores_are_those_of_the_sequences():
    model, prompt = chain(7, seed=1), torch.randint(1, 7, (3, 2))
    tokens, scores = beam_search(model.step, prompt, end=END, max_new=6, beam=3)
    assert (scores.diff(dim=1) <= 0).all()
    for i, j in product(range(3), range(3)):
        new = tokens[i, j, 2:].tolist()
        new = new[: new.index(END) + 1] if END in new else new
        assert scores[i, j].item() == pytest.approx(score(model, prompt[i].tolist(), new, length_penalty))


def test_parents_carry_the_state_of_a_recurrent_model():
    model, prompt = chain(7, seed=2), torch.randint(1, 7, (4, 1))
    expected = beam_search(model.step, prompt, end=END, max_new=8)
    found = beam_search(model.stateful(4), prompt, end=END, max_new=8)
    assert torch.equal(found[0], expected[0])
    assert_same(found[1], expected[1])


def test_the_prompt_goes_through_the_model_once_for_all_beams():
    model, prompt, rows = chain(7), torch.randint(1, 7, (4, 2)), []

    def step(tokens, parents):
        rows.append(len(tokens))
        return model(tokens)

    beam_search(step, prompt, end=END, max_new=3, beam=3)
    assert rows == [4, 12, 12]


def test_length_penalty_by_hand():
    assert length_penalty(1) == 1
    assert length_penalty(13, alpha=1.0) == 3
    assert length_penalty(19, alpha=0.5) == 2
    assert length_penalty(99, alpha=0.0) == 1


def test_length_penalty_favours_the_longer():
    """Ends now with p = 1/2, or after another certain five tokens; alone the probabilities are a tie."""

    def step(tokens, parents):
        new = tokens.shape[1] - 1
        p = torch.full((len(tokens), 3), 1e-12)
        p[:, END if new >= 6 else 1] = 1.0
        if new == 0:
            p[:, END], p[:, 1] = 0.51, 0.49
        return p.log()

    def best(alpha):
        settings = {"end": END, "max_new": 9, "beam": 2, "penalty": lambda length: length_penalty(length, alpha)}
        return beam_search(step, torch.tensor([[1]]), **settings)[0][0, 0, 1:].tolist().index(END)

    assert best(alpha=0.0) == 0
    assert best(alpha=0.6) == 6


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_equals_transformers(alpha):
    """Their beam search, with early_stopping=True and their penalty, length ** alpha."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=29, n_positions=31, n_embd=14, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=END)
    reference = randomise(GPT2LMHeadModel(config).eval(), std=0.6)
    prompt = torch.randint(1, 29, (5, 3))
    theirs = reference.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=11,
        num_beams=3,
        num_return_sequences=3,
        early_stopping=True,
        length_penalty=alpha,
        do_sample=False,
        pad_token_id=END,
        return_dict_in_generate=True,
        output_scores=True,
    )
    tokens, scores = beam_search(
        lambda tokens, parents: reference(tokens).logits[:, -1],
        prompt,
        end=END,
        max_new=11,
        beam=3,
        penalty=lambda length: length**alpha,
    )
    assert torch.equal(tokens.flatten(0, 1), theirs.sequences)
    assert_same(scores.flatten().float(), theirs.sequences_scores.float(), 1e-5)  # they add up in float32
    assert len({tuple(row) for row in tokens.flatten(0, 1).tolist()}) == 15


def test_more_hypotheses_than_there_are_get_minus_infinity():
    tokens, scores = beam_search(chain(3).step, torch.tensor([[1]]), end=END, max_new=1, beam=5)
    assert scores[0].isfinite().tolist() == [True] * 3 + [False] * 2
    assert math.isclose(scores[0, :3].exp().sum().item(), 1.0)
    assert tokens.shape == (1, 5, 2)


def test_errors():
    prompt = torch.tensor([[1]])
    with pytest.raises(ValueError, match="beam=0 and max_new=3 must be at least 1"):
        beam_search(chain(3).step, prompt, end=END, max_new=3, beam=0)
    with pytest.raises(ValueError, match="max_new=0 must be at least 1"):
        greedy_search(chain(3).step, prompt, end=END, max_new=0)
