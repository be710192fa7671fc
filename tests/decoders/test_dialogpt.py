import copy

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from decoders.dialogues import END, dialogue, gpt2
from helpers import assert_differs, assert_same, leaks, randomise
from papercode.decoders.dialogpt import (
    IGNORE,
    dialogue_batch,
    flatten,
    histories,
    log_likelihoods,
    response_loss,
)
from papercode.decoders.gpt2 import GPT2

TURNS = [[5, 6, 7], [8], [9, 4]]


def test_flattening_by_hand():
    assert flatten(TURNS, 0) == [5, 6, 7, 0, 8, 0, 9, 4, 0]
    assert flatten([[], [3]], 1) == [1, 3, 1]
    with pytest.raises(ValueError, match="turn 1 holds end=8"):
        flatten(TURNS, 8)


def test_a_batch_by_hand():
    batch = dialogue_batch([TURNS, [[2], [3]]], END)
    assert batch.tokens.tolist() == [[5, 6, 7, 0, 8, 0, 9, 4], [2, 0, 3, 0, 0, 0, 0, 0]]
    i = IGNORE
    assert batch.targets.tolist() == [[i, i, i, 8, 0, 9, 4, 0], [i, 3, 0, i, i, i, i, i]]
    assert batch.turns.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 0, 0, 0, 0, 0]]


def test_the_end_of_a_turn_is_predicted_and_that_of_the_source_is_not():
    """Differences from the paper: which turn the end token belongs to."""
    batch = dialogue_batch([TURNS], END)
    assert (batch.targets == END).sum() == 2  # of three
    assert batch.targets[0, -1] == END
    assert batch.targets[0, 2] == IGNORE


def test_one_turn_only_may_be_learned():
    batch = dialogue_batch([TURNS], END, learn=[[False, False, True]])
    assert batch.targets.tolist() == [[IGNORE] * 5 + [9, 4, 0]]
    assert batch.turns.tolist() == [[0] * 5 + [2, 2, 2]]
    batch = dialogue_batch([TURNS], END, learn=[[False, True, False]])
    assert log_likelihoods(gpt2(), batch).shape == (1, 2)  # no column for a last turn that is not learned


def test_histories_by_hand():
    assert histories(TURNS) == [TURNS[:2], TURNS]
    assert histories(TURNS[:1]) == []


def test_errors():
    with pytest.raises(ValueError, match="dialogue 1 has 1 turns, but a reply needs one before it"):
        dialogue_batch([TURNS, TURNS[:1]], END)
    with pytest.raises(ValueError, match=r"learn\[0\]=\[True, True, True\] must have one entry .* first False"):
        dialogue_batch([TURNS], END, learn=[[True] * 3])
    with pytest.raises(ValueError, match=r"learn\[0\]=\[False, True\] must have one entry for each of 3"):
        dialogue_batch([TURNS], END, learn=[[False, True]])
    with pytest.raises(ValueError, match="learn is for 1 dialogues, but there are 2"):
        dialogue_batch([TURNS, TURNS], END, learn=[[False, True, True]])


def test_a_dialogue_longer_than_the_model_is_refused():
    """Differences from the paper: nothing is cut."""
    with pytest.raises(ValueError, match="n_positions=31"):
        response_loss(gpt2(), dialogue_batch([dialogue(17, 14)], END))
    assert response_loss(gpt2(), dialogue_batch([dialogue(17, 13)], END)).isfinite()


def test_one_pass_equals_the_separate_losses():
    model, turns = gpt2(), dialogue(4, 3, 1, 5, 2)
    whole = response_loss(model, dialogue_batch([turns], END), mean=False)
    parts = []
    for history in histories(turns):
        only_last = [[False] * (len(history) - 1) + [True]]
        parts.append(response_loss(model, dialogue_batch([history], END, only_last), mean=False))
    assert len(parts) == 4
    assert_same(whole, torch.stack(parts).sum())
    each = log_likelihoods(model, dialogue_batch([turns], END))
    assert_same(each[0], -torch.stack([torch.zeros(()).double(), *parts]))
    # what the equality needs: every reply sees all that came before
    alone = [response_loss(model, dialogue_batch([turns[i : i + 2]], END), mean=False) for i in range(4)]
    assert abs(whole - sum(alone)) > 1e-2


def test_and_so_do_the_gradients():
    one, many, turns = gpt2(), gpt2(), dialogue(4, 3, 5)
    response_loss(one, dialogue_batch([turns], END), mean=False).backward()
    for history in histories(turns):
        only_last = [[False] * (len(history) - 1) + [True]]
        response_loss(many, dialogue_batch([history], END, only_last), mean=False).backward()
    for mine, theirs in zip(one.parameters(), many.parameters()):
        assert_same(mine.grad, theirs.grad)


def test_dialogues_do_not_see_one_another_nor_the_padding():
    model, turns = gpt2(), [dialogue(4, 3, 5), dialogue(2, 1)]
    together = log_likelihoods(model, dialogue_batch(turns, END))
    for row, single in zip(together, turns):
        alone = log_likelihoods(model, dialogue_batch([single], END))[0]
        assert_same(row[: len(alone)], alone)
        assert not row[len(alone) :].any()
    batch = dialogue_batch(turns, END)
    changed = batch.tokens.clone()
    changed[1, 4:] = 7  # padding
    rows = torch.tensor([True, True])
    assert not leaks(lambda t: log_likelihoods(model, batch._replace(tokens=t)), batch.tokens, changed, rows)
    changed[1, 2] = (changed[1, 2] + 1) % 23
    assert leaks(lambda t: log_likelihoods(model, batch._replace(tokens=t)), batch.tokens, changed, rows)


def test_the_mean_is_over_the_learned_tokens_of_all_dialogues():
    model, turns = gpt2(), [dialogue(4, 3, 5), dialogue(2, 1)]
    batch = dialogue_batch(turns, END)
    whole, mean = response_loss(model, batch, mean=False), response_loss(model, batch)
    assert_same(mean, whole / (3 + 1 + 5 + 1 + 1 + 1))
    assert_same(whole, -log_likelihoods(model, batch).sum())
    assert_same(mean, cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten()))


def test_the_first_turn_is_not_learned_but_read():
    model, turns = gpt2(), dialogue(4, 3)
    other = [[(t % 22) + 1 for t in turns[0]], turns[1]]
    one, two = (log_likelihoods(model, dialogue_batch([t], END)) for t in (turns, other))
    assert_differs(one[:, 1], two[:, 1])
    assert not one[:, 0].any()


@pytest.mark.parametrize("lengths", [[(3, 2)], [(4, 3, 5), (2, 1), (1, 6, 2, 3)]], ids=["pair", "batch"])
def test_equals_transformers(parity, lengths, tmp_path):
    turns = [dialogue(*each) for each in lengths]
    config = GPT2Config(vocab_size=23, n_embd=14, n_layer=2, n_head=2, n_positions=31, n_inner=19)
    reference = randomise(GPT2LMHeadModel(config)).eval()
    reference.save_pretrained(tmp_path)
    model = GPT2.from_pretrained(tmp_path)
    batch = dialogue_batch(turns, END)
    # transformers shifts by itself: the labels are the tokens, and -100 on the source and on the padding
    longest = batch.tokens.shape[1] + 1
    texts = [flatten(each, END) for each in turns]
    tokens = torch.tensor([text + [END] * (longest - len(text)) for text in texts])
    labels = torch.tensor(
        [
            [-100] * (len(each[0]) + 1) + text[len(each[0]) + 1 :] + [-100] * (longest - len(text))
            for each, text in zip(turns, texts)
        ]
    )

    def expected():  # transformers computes its loss in single precision, so here it is taken from its logits
        return cross_entropy(reference(tokens).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    ours, theirs = response_loss(model, batch), expected()
    assert_same(ours.float(), reference(tokens, labels=labels).loss, 1e-6)
    ours.backward()
    theirs.backward()
    gradients = model.words.weight.grad, reference.transformer.wte.weight.grad
    parity(
        "DialoGPT",
        "transformers.GPT2LMHeadModel",
        f"loss and gradient, {len(turns)} dialogues",
        [ours, gradients[0]],
        [theirs, gradients[1]],
    )
    labels[0, len(turns[0][0])] = END  # the end of the source learned as well
    assert_differs(expected(), ours)


@pytest.mark.parametrize(
    ("sizes", "parameters"),
    [
        ({}, 124_439_808),
        ({"d_model": 1024, "n_heads": 16, "n_layers": 24}, 354_823_168),
        ({"d_model": 1280, "n_heads": 20, "n_layers": 36}, 774_030_080),
    ],
    ids=["117M", "345M", "762M"],
)
def test_counts_on_the_meta_device(sizes, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT2(**sizes).parameters()) == parameters


def test_a_dialogue_can_be_learned_by_heart():
    torch.manual_seed(0)
    model, turns = GPT2(23, n_positions=31, d_model=32, n_heads=2, n_layers=2, dropout=0.0), dialogue(4, 3, 1, 5)
    before, batch = copy.deepcopy(model), dialogue_batch([turns], END)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        adam.zero_grad()
        response_loss(model, batch).backward()
        adam.step()
    assert response_loss(model, batch) < 0.1 < response_loss(before, batch)
    learned = batch.targets != IGNORE
    assert torch.equal(model(batch.tokens).argmax(-1)[learned], batch.targets[learned])
