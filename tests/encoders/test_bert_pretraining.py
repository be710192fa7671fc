"""The heads of pre-training by hand, their loss against transformers', and one small model that learns both tasks."""

import itertools

import pytest
import torch
from transformers import BertForPreTraining

from helpers import assert_differs, assert_same, randomise
from papercode.encoders.bert import BERT
from papercode.encoders.bert_data import build_nsp_pairs, mask_tokens, warm_up
from papercode.encoders.bert_pretraining import (
    IGNORED,
    BERTForMaskedLM,
    BERTForNextSentence,
    BERTForPreTraining,
    MaskedLMHead,
    new_layer,
)
from papercode.training import train

V, D, HEADS, D_FF, LAYERS, B, N = 23, 14, 7, 19, 2, 3, 11
SIZES = {"n_positions": 13, "d_model": D, "n_heads": HEADS, "d_ff": D_FF, "n_layers": LAYERS}


def made(cls, **changes):
    return randomise(cls(BERT(V, **SIZES | changes))).eval()


def batch():
    x, segments = torch.randint(V, (B, N)), torch.randint(2, (B, N))
    keep = torch.arange(N) < torch.tensor([N, 7, 5])[:, None]
    return x, segments, keep


def targets(keep):
    """Two words a text."""
    wanted = torch.full((B, N), IGNORED)
    wanted[:, 2], wanted[:, 4] = torch.randint(V, (B,)), torch.randint(V, (B,))
    return wanted


# the heads


def test_the_head_of_words_by_hand():
    head, states = randomise(MaskedLMHead(D, V)), torch.randn(B, N, D, dtype=torch.float64)
    words = torch.randn(V, D, dtype=torch.float64)
    h = states @ head.transform.weight.T + head.transform.bias
    h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
    h = h - h.mean(-1, keepdim=True)
    h = head.norm.gain * h / (h.square().mean(-1, keepdim=True) + 1e-12).sqrt() + head.norm.bias
    assert_same(head(states, words), h @ words.T + head.bias)


def test_the_last_map_is_the_table_of_words_and_no_other():
    model, (x, segments, keep) = made(BERTForMaskedLM), batch()
    assert sum(p.shape == (V, D) for p in model.parameters()) == 1
    before = model(x, segments, keep)
    with torch.no_grad():
        model.encoder.words.weight[V - 1] += 1
    free = ~(x == V - 1).any(1)
    after = model(x, segments, keep)
    assert_same(after[free][..., :-1], before[free][..., :-1])
    assert_differs(after[free][..., -1], before[free][..., -1])


def test_that_it_follows_is_read_from_the_pooler():
    model, given = made(BERTForPreTraining), batch()
    expected = model.encoder.pool(model.encoder(*given)) @ model.nsp.weight.T + model.nsp.bias
    assert_same(model(*given)[1], expected)
    unpooled = model.encoder(*given)[:, 0] @ model.nsp.weight.T + model.nsp.bias
    assert_differs(model(*given)[1], unpooled)


def test_the_models_are_made_of_the_same_parts():
    both, given = made(BERTForPreTraining), batch()
    words, follows = BERTForMaskedLM(both.encoder), BERTForNextSentence(both.encoder)
    words.mlm, follows.nsp = both.mlm, both.nsp
    assert_same(both(*given)[0], words(*given), 0)
    assert_same(both(*given)[1], follows(*given), 0)


# the loss


def test_the_loss_and_its_gradients(parity, tmp_path):
    model, (x, segments, keep) = made(BERTForPreTraining), batch()
    x = x.clamp(min=1)  # transformers gives the embedding of token 0, which pads, no gradient
    wanted, follows = targets(keep), torch.tensor([True, False, False])
    model.to_transformers(tmp_path)
    reference = BertForPreTraining.from_pretrained(tmp_path, dtype=torch.float64).eval()
    ours = model.loss(x, wanted, follows, segments, keep)
    theirs = reference(
        x, token_type_ids=segments, attention_mask=keep.long(), labels=wanted, next_sentence_label=(~follows).long()
    ).loss
    ours.backward()
    theirs.backward()
    pairs = [
        (ours, theirs),
        (model.encoder.words.weight.grad, reference.bert.embeddings.word_embeddings.weight.grad),
        (model.encoder.positions.weight.grad, reference.bert.embeddings.position_embeddings.weight.grad),
        (model.mlm.bias.grad, reference.cls.predictions.bias.grad),
        (model.nsp.weight.grad, reference.cls.seq_relationship.weight.grad),
    ]
    parity("BERTForPreTraining", "transformers.BertForPreTraining", "loss and gradients", *zip(*pairs, strict=True))
    assert abs(model.loss(x, wanted, ~follows, segments, keep) - theirs).item() > 1e-5
    assert abs(model.loss(x, wanted, follows, segments) - theirs).item() > 1e-5


def test_the_loss_is_the_sum_of_two_means():
    model, (x, segments, keep) = made(BERTForPreTraining), batch()
    wanted, follows = targets(keep), torch.tensor([True, False, False])
    words, second = model(x, segments, keep)
    log_p = words.log_softmax(-1)
    of_words = [-log_p[i, j, wanted[i, j]] for i in range(B) for j in (2, 4)]
    of_pairs = [-second.log_softmax(-1)[i, 0 if follows[i] else 1] for i in range(B)]
    assert_same(model.loss(x, wanted, follows, segments, keep), sum(of_words) / 6 + sum(of_pairs) / 3)
    alone = BERTForMaskedLM(model.encoder).eval()
    alone.mlm = model.mlm
    assert_same(alone.loss(x, wanted, segments, keep), sum(of_words) / 6)
    assert_differs(alone.loss(x, wanted, segments), alone.loss(x, wanted, segments, keep))


def test_nothing_to_predict_costs_nothing():
    model, (x, segments, keep) = made(BERTForMaskedLM), batch()
    loss = model.loss(x, torch.full_like(x, IGNORED), segments, keep)
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_only_chosen_positions_have_logits():
    model, (x, segments, keep) = made(BERTForMaskedLM), batch()
    rows = []
    model.mlm.transform.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape))
    model.loss(x, targets(keep), segments, keep)
    model(x, segments, keep)
    assert rows == [(2 * B, D), (B, N, D)]


# what cannot be


@pytest.mark.parametrize("cls", [BERTForPreTraining, BERTForNextSentence])
def test_a_pooler_is_needed(cls):
    with pytest.raises(ValueError, match=r"encoder has no pooler \(it was made with pooler=False\)"):
        cls(BERT(V, **SIZES, pooler=False))
    BERTForMaskedLM(BERT(V, **SIZES, pooler=False))


def test_a_new_layer_is_like_the_encoder():
    encoder = BERT(V, **SIZES).double()
    layer = new_layer(encoder, 5)
    assert (layer.weight.shape, layer.weight.dtype) == ((5, D), torch.float64)
    assert layer.weight.abs().max() <= 0.04
    assert (layer.bias == 0).all()
    with pytest.raises(ValueError, match="n_out=0 must be at least 1"):
        new_layer(encoder, 0)


@pytest.mark.parametrize("cls", [BERTForPreTraining, BERTForMaskedLM])
def test_fresh_heads_are_like_the_encoder(cls):
    model = cls(BERT(V, **SIZES, eps=1e-3).double())
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model.mlm.norm.eps == 1e-3
    assert 0 < model.mlm.transform.weight.abs().max() <= 0.04
    assert (model.mlm.bias == 0).all()


# both tasks are learned


def framed(pairs, length, cls=1, sep=2):
    rows = [[cls, *a, sep, *b, sep] for a, b, _ in pairs]
    segments = [[0] * (len(a) + 2) + [1] * (len(b) + 1) for a, b, _ in pairs]
    x, kinds = (torch.tensor([row + [0] * (length - len(row)) for row in table]) for table in (rows, segments))
    return x, kinds, x != 0


def test_pre_training_steps_learn_both_tasks():
    """Documents that each use words of their own: hidden words can be narrowed down, strangers recognised."""
    generator = torch.Generator().manual_seed(0)
    own = [range(4 + 3 * d, 7 + 3 * d) for d in range(3)]
    texts = [[[words[i] for i in torch.randint(3, (4,), generator=generator)] for _ in range(24)] for words in own]
    model = BERTForPreTraining(BERT(13, n_positions=20, d_model=24, n_heads=4, d_ff=48, n_layers=1, dropout=0.0))

    def batches():
        for seed in itertools.count():
            pairs = list(build_nsp_pairs(texts, 20, seed=seed))[:16]
            x, segments, keep = framed(pairs, 20)
            hidden, wanted = mask_tokens(x, mask=3, n_tokens=13, special=(0, 1, 2), generator=generator)
            yield hidden, wanted, torch.tensor([pair.follows for pair in pairs]), segments, keep

    optimizer = torch.optim.AdamW(model.parameters())
    losses = train(model, model.loss, itertools.islice(batches(), 100), optimizer, rate=warm_up(1e-2, 20, 120))
    assert sum(losses[:5]) / 5 > 2.9  # log 13 + log 2 = 3.3
    assert sum(losses[-10:]) / 10 < 1.7  # log 3 + 0 = 1.1
    x, _, follows, segments, keep = next(batches())
    found = model.eval()(x, segments, keep)[1].argmax(-1) == 0
    assert (found == follows).float().mean() > 0.9
