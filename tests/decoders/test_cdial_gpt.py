import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from decoders.dialogues import dialogue
from helpers import assert_differs, assert_same, leaks, randomise
from papercode.attention.masks import Band
from papercode.decoders.cdial_gpt import (
    CDialGPT,
    Marks,
    all_responses,
    clipped,
    prompt,
    response_losses,
    response_samples,
)
from papercode.decoders.dialogpt import IGNORE, histories
from papercode.decoders.gpt import GPT

MARKS = Marks(start=1, end=2, speakers=(3, 4))
TURNS = [[10, 11], [12], [13, 14]]
I = IGNORE  # noqa: E741
SIZES = {"n_positions": 31, "d_model": 14, "n_heads": 2, "d_ff": 56, "n_layers": 2, "dropout": 0.0}


def toy(**sizes):
    return randomise(CDialGPT(23, **{**SIZES, **sizes})).eval()


def turns_of(*lengths):
    return dialogue(*lengths, low=5)


# what the model reads


def test_a_sample_by_hand():
    batch = response_samples([TURNS], MARKS)
    assert batch.tokens.tolist() == [[1, 3, 10, 11, 4, 12, 3, 13, 14]]
    assert batch.speakers.tolist() == [[1, 3, 3, 3, 4, 4, 3, 3, 3]]
    assert batch.targets.tolist() == [[I, I, I, I, I, I, 13, 14, 2]]


def test_one_pass_by_hand():
    batch = all_responses([TURNS, [[15], []]], MARKS)
    assert batch.tokens.tolist() == [[1, 3, 10, 11, 4, 12, 3, 13, 14], [1, 3, 15, 4, 0, 0, 0, 0, 0]]
    assert batch.speakers.tolist() == [[1, 3, 3, 3, 4, 4, 3, 3, 3], [1, 3, 3, 4, 0, 0, 0, 0, 0]]
    # after 12 the row reads [speaker1], but what is learned is [SEP]
    assert batch.targets.tolist() == [[I, I, I, I, 12, 2, 13, 14, 2], [I, I, I, 2, I, I, I, I, I]]


def test_padding_has_its_mark_for_speaker():
    """Differences from the paper: as in the authors' code."""
    marks = MARKS._replace(pad=9)
    batch = response_samples([TURNS, TURNS[:2]], marks)
    assert batch.tokens[1].tolist() == [1, 3, 10, 11, 4, 12, 9, 9, 9]
    assert batch.speakers[1].tolist() == [1, 3, 3, 3, 4, 4, 9, 9, 9]
    assert batch.targets[1].tolist() == [I, I, I, I, 12, 2, I, I, I]


def test_a_prompt_ends_where_the_reply_begins():
    tokens, speakers = prompt(TURNS[:2], MARKS)
    sample = response_samples([TURNS], MARKS)
    assert torch.equal(tokens, sample.tokens[:, :7])
    assert torch.equal(speakers, sample.speakers[:, :7])
    assert sample.targets[0, 6] == TURNS[2][0]


def test_a_reply_needs_something_before_it():
    for make in (response_samples, all_responses):
        with pytest.raises(ValueError, match="dialogue 1 has 1 turns, but a reply needs one before it"):
            make([TURNS, TURNS[:1]], MARKS)


def test_the_history_is_clipped_to_thirty_turns():
    turns = [[5 + i % 7] for i in range(33)]
    assert clipped(turns) == turns[3:]
    assert clipped(turns, 2) == turns[-4:]
    assert clipped(turns[:4]) == turns[:4]
    # the reply of a dialogue that was cut is always the second speaker's; who spoke may change
    whole, cut = (response_samples([t], MARKS).speakers[0, -1] for t in (turns, clipped(turns)))
    assert (whole, cut) == (3, 4)
    with pytest.raises(ValueError, match="max_history=0 must be at least 1"):
        clipped(turns, 0)


# the model


def test_speakers_are_words_added():
    model, batch = toy(), response_samples([TURNS], MARKS)
    table, places = model.words.weight, model.positions.weight
    expected = [
        table[token] + places[i] + table[speaker]
        for i, (token, speaker) in enumerate(zip(batch.tokens[0], batch.speakers[0]))
    ]
    assert_same(model.embed(batch.tokens, batch.speakers)[0], torch.stack(expected))
    assert_same(model.embed(batch.tokens[:, 3:], batch.speakers[:, 3:], start=3)[0], torch.stack(expected[3:]))
    assert len(list(model.parameters())) == len(list(GPT(23, **SIZES).parameters()))  # no table of their own


@pytest.mark.parametrize("n_heads", [1, 2])
def test_equals_transformers_with_token_types(parity, tmp_path, n_heads):
    config = OpenAIGPTConfig(vocab_size=23, n_embd=14, n_layer=2, n_head=n_heads, n_positions=31, afn="gelu")
    reference = randomise(OpenAIGPTLMHeadModel(config)).eval()
    reference.save_pretrained(tmp_path / "theirs")
    model = CDialGPT.from_pretrained(tmp_path / "theirs")
    batch = all_responses([turns_of(4, 3, 5), turns_of(2, 1)], MARKS)
    ours, theirs = model(batch.tokens, batch.speakers), reference(batch.tokens, token_type_ids=batch.speakers).logits
    flat = batch.targets.flatten()
    losses = [cross_entropy(logits.flatten(0, 1), flat) for logits in (ours, theirs)]
    losses[0].backward()
    losses[1].backward()
    gradients = model.words.weight.grad, reference.transformer.tokens_embed.weight.grad
    parity(
        "CDial-GPT",
        "transformers.OpenAIGPTLMHeadModel",
        f"token types, logits, loss and gradient, {n_heads} heads",
        [ours, losses[0], gradients[0]],
        [theirs, losses[1], gradients[1]],
    )
    assert_differs(reference(batch.tokens).logits, ours)  # without token types
    model.to_transformers(tmp_path / "ours")
    again = OpenAIGPTLMHeadModel.from_pretrained(tmp_path / "ours", dtype=torch.float64)
    assert_same(again(batch.tokens, token_type_ids=batch.speakers).logits, ours)


def test_the_authors_labels_give_the_same_loss(parity):
    """The released code feeds [SEP] as well and shifts inside the model; -1 is what it ignores."""
    model, samples = toy(), [turns_of(4, 3, 5), turns_of(2, 1)]
    batch = response_samples(samples, MARKS)
    theirs = []
    for turns in samples:
        marked = [[MARKS.speakers[i % 2], *turn] for i, turn in enumerate(turns)]
        marked[-1] = [*marked[-1], MARKS.end]
        tokens = [MARKS.start, *(token for part in marked for token in part)]
        types = [MARKS.start, *(part[0] for part in marked for _ in part)]
        labels = [-1] * (1 + sum(map(len, marked[:-1])) + 1) + marked[-1][1:]
        logits = model(torch.tensor([tokens]), torch.tensor([types]))[0, :-1]
        theirs.append(cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-1, reduction="sum"))
    parity("CDial-GPT", "the authors' recipe, with loops", "loss of two samples", response_losses(model, batch).sum(1),
           torch.stack(theirs))  # fmt: skip


def test_counts():
    with torch.device("meta"):
        model = CDialGPT()
        tokens = torch.zeros(1, 513, dtype=torch.long)
        assert model(tokens, tokens).shape == (1, 513, 13_088)
    assert sum(p.numel() for p in model.parameters()) == 95_500_032
    assert model.positions.weight.shape == (513, 768)
    assert len(model.layers) == 12


def test_errors():
    model = toy()
    tokens = torch.zeros(1, 32, dtype=torch.long)
    with pytest.raises(ValueError, match="tokens reach position 32, but n_positions=31"):
        model(tokens, tokens)
    with pytest.raises(ValueError, match="tokens reach position 32, but n_positions=31"):
        model(tokens[:, :1], tokens[:, :1], start=31)
    with pytest.raises(ValueError, match="start=-1 must be at least 0"):
        model(tokens[:, :1], tokens[:, :1], start=-1)
    with pytest.raises(ValueError, match=r"speakers is \(1, 4\), but tokens \(1, 5\)"):
        model.embed(tokens[:, :5], tokens[:, :4])


def test_no_position_sees_a_later_token_or_speaker():
    model, batch = toy(), response_samples([turns_of(4, 3, 5)], MARKS)
    before = torch.arange(batch.tokens.shape[1]) < 6
    for name in ("tokens", "speakers"):
        x = getattr(batch, name)
        changed = torch.where(before, x, (x + 1) % 23)

        def logits(value, name=name):
            other = batch._replace(**{name: value})
            return model(other.tokens, other.speakers)[0]

        assert not leaks(logits, x, changed, before)
        assert leaks(logits, x, changed, ~before)


def test_a_mask_reaches_the_attentions():
    model, batch = toy(), response_samples([turns_of(4, 3)], MARKS)
    near = model(batch.tokens, batch.speakers, mask=Band(1, 0))
    assert_differs(near, model(batch.tokens, batch.speakers))


def test_dropout_is_on_the_sum():
    model, batch = toy(dropout=0.5).train(), response_samples([TURNS], MARKS)
    torch.manual_seed(3)
    found = model.embed(batch.tokens, batch.speakers)
    torch.manual_seed(3)
    whole = model.eval().embed(batch.tokens, batch.speakers)
    assert_same(found, torch.nn.functional.dropout(whole, 0.5))
    assert (found == 0).any()


# one pass and many samples


def test_one_pass_equals_the_expanded_samples():
    model, turns = toy(), turns_of(4, 3, 1, 5)
    samples = response_losses(model, response_samples(histories(turns), MARKS)).sum(1)
    whole = response_losses(model, all_responses([turns], MARKS))
    lengths = [len(turn) + 1 for turn in turns[1:]]
    learned = whole[whole != 0]
    assert len(learned) == sum(lengths)
    assert_same(torch.stack([part.sum() for part in learned.split(lengths)]), samples)
    assert_same(whole.sum(), samples.sum())
    # with the mark that is read next for target, as a plain language model has it, they differ
    plain = all_responses([turns], MARKS)
    shifted = torch.cat([plain.tokens[:, 1:], torch.full((1, 1), MARKS.end)], 1)
    other = plain._replace(targets=torch.where(plain.targets == IGNORE, IGNORE, shifted))
    assert (other.targets != plain.targets).sum() == 2
    assert_differs(response_losses(model, other).sum(), whole.sum())


def test_and_so_do_the_gradients():
    turns, grads = turns_of(4, 3, 5), []
    for batch in (all_responses([turns], MARKS), response_samples(histories(turns), MARKS)):
        model = toy()
        response_losses(model, batch).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads):
        assert_same(one, other)


def test_a_clipped_history_breaks_the_equality():
    model, turns = toy(), turns_of(2, 3, 1, 4)
    samples = [clipped(history, 1) for history in histories(turns)]
    assert_differs(
        response_losses(model, response_samples(samples, MARKS)).sum(),
        response_losses(model, all_responses([turns], MARKS)).sum(),
    )


def test_what_is_not_learned_costs_nothing():
    model, batch = toy(), response_samples([TURNS, TURNS[:2]], MARKS)
    losses = response_losses(model, batch)
    assert torch.equal(losses == 0, batch.targets == IGNORE)
    assert_same(losses.sum() / (batch.targets != IGNORE).sum(),
                cross_entropy(model(batch.tokens, batch.speakers).flatten(0, 1), batch.targets.flatten()))  # fmt: skip


def test_swapped_speakers_are_noticed():
    model, batch = toy(), response_samples([turns_of(4, 3, 5)], MARKS)
    swapped = batch.speakers.where(batch.speakers < 3, 7 - batch.speakers)
    assert sorted({*swapped.flatten().tolist()}) == [1, 3, 4]
    assert_differs(model(batch.tokens, swapped), model(batch.tokens, batch.speakers))
