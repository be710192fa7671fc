import pytest
import torch

from decoders.dialogues import END, dialogue, gpt2
from helpers import assert_differs, assert_same
from papercode.decoders.dialogpt import dialogue_batch, response_loss
from papercode.decoders.dialogpt_mmi import (
    backward_scores,
    forward_scores,
    mutual_information,
    rerank,
    reversed_turns,
)
from papercode.decoders.gpt2 import GPT2

SOURCE, REPLIES = dialogue(4, 3), [[5, 6], [7], [8, 9, 1]]


def test_reversed_by_hand():
    assert reversed_turns([[1, 2], [3], [4, 5]]) == [[4, 5], [3], [1, 2]]


def slow(model, text, start):
    """Log-probability of text from position start on, token by token."""
    total = 0
    for i in range(start, len(text)):
        total = total + model(torch.tensor([text[:i]]))[0, -1].log_softmax(-1)[text[i]]
    return total


def test_scores_equal_the_equations_with_loops(parity):
    model = gpt2()
    context = [*SOURCE[0], END, *SOURCE[1], END]
    there = [slow(model, [*context, *reply, END], len(context)) for reply in REPLIES]
    back = [slow(model, [*reply, END, *SOURCE[1], END, *SOURCE[0], END], len(reply) + 1) for reply in REPLIES]
    found = forward_scores(model, SOURCE, REPLIES, END), backward_scores(model, SOURCE, REPLIES, END)
    parity("DialoGPT, MMI", "the equations, with loops", "two turns before, three replies", found,
           (torch.stack(there).detach(), torch.stack(back).detach()))  # fmt: skip
    assert_differs(*found)
    # the source in its own order is another question
    straight = [slow(model, [*r, END, *SOURCE[0], END, *SOURCE[1], END], len(r) + 1) for r in REPLIES]
    assert_differs(found[1], torch.stack(straight).detach())


def test_the_backward_score_has_all_turns_of_the_source_and_not_the_reply():
    model = gpt2()
    with torch.no_grad():
        loss = [response_loss(model, dialogue_batch([[r, *SOURCE[::-1]]], END), mean=False) for r in REPLIES]
    assert_same(backward_scores(model, SOURCE, REPLIES, END), -torch.stack(loss))


def test_the_mixture():
    one, two = torch.tensor([-1.0, -4.0]), torch.tensor([-9.0, -2.0])
    assert torch.equal(mutual_information(one, two), two)
    assert torch.equal(mutual_information(one, two, 0.0), one)
    assert_same(mutual_information(one, two, 0.25), torch.tensor([-3.0, -3.5]))
    for weight in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"weight={weight} must be between 0 and 1"):
            mutual_information(one, two, weight)


def test_the_order_is_that_of_the_backward_scores_and_equal_replies_come_once():
    model = gpt2()
    scores = backward_scores(model, SOURCE, REPLIES, END)
    expected = [REPLIES[i] for i in scores.argsort(descending=True).tolist()]
    assert rerank(model, SOURCE, REPLIES, END) == expected
    assert rerank(model, SOURCE, [*REPLIES, REPLIES[0], REPLIES[2]], END) == expected
    assert expected != REPLIES
    assert scores.argmax() != forward_scores(model, SOURCE, REPLIES, END).argmax()  # which would order them otherwise
    assert len(rerank(model, SOURCE, [[5, 6], [6, 5]], END)) == 2  # the same words in another order
    with pytest.raises(ValueError, match="replies is empty"):
        rerank(model, SOURCE, [], END)


def test_no_gradient_is_kept():
    assert not backward_scores(gpt2(), SOURCE, REPLIES, END).requires_grad
    assert not forward_scores(gpt2(), SOURCE, REPLIES, END).requires_grad


def test_it_prefers_the_reply_that_tells_the_source():
    """Each source has an answer of its own, but three times out of four people say something that fits all."""
    torch.manual_seed(0)
    bland, sources = 20, range(1, 7)
    dialogues = [[[s], [s + 10]] for s in sources] + [[[s], [bland]] for s in sources for _ in range(3)]
    models = []
    for turn in (list, reversed_turns):
        model = GPT2(23, n_positions=8, d_model=32, n_heads=2, n_layers=1, dropout=0.0)
        for table in (model.words, model.positions):
            torch.nn.init.normal_(table.weight, std=0.3)
        batch = dialogue_batch([turn(d) for d in dialogues], END)
        adam = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(80):
            adam.zero_grad()
            response_loss(model, batch).backward()
            adam.step()
        models.append(model)
    for s in sources:
        replies = [[bland], *([t + 10] for t in sources)]
        assert forward_scores(models[0], [[s]], replies, END).argmax() == 0
        assert rerank(models[1], [[s]], replies, END)[0] == [s + 10]
