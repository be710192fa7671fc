"""Replaced words with DeBERTa, and who moves which word vectors."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.encoders.bert_pretraining import IGNORED
from papercode.encoders.deberta_v3 import DeBERTaV3, DeBERTaV3ForMaskedLM
from papercode.encoders.deberta_v3_pretraining import (
    DeBERTaV3Discriminator,
    DeBERTaV3ForPreTraining,
    DeltaEmbedding,
    one_table,
    table_and_change,
    two_tables,
)
from papercode.encoders.electra_data import hide
from papercode.training import train

V, D, B, N, MASK = 23, 14, 5, 11, 1
SIZES = {"k": 4, "max_distance": 9, "d_model": D, "n_heads": 7, "d_ff": 19}


def encoder(n_layers, **changes):
    return DeBERTaV3(V, **SIZES, n_layers=n_layers, dropout=0.0, **changes)


def made(share=table_and_change, **changes):
    both = DeBERTaV3ForPreTraining(
        DeBERTaV3ForMaskedLM(encoder(1), 31), DeBERTaV3Discriminator(encoder(2)), share, **changes
    )
    return randomise(both).eval()


def batch():
    x = torch.randint(3, V, (B, N))
    keep = torch.arange(N) < torch.tensor([N, N, 9, 7, 4])[:, None]
    x = torch.where(keep, x, 0)
    return x, keep, *hide(x, mask=MASK, special=[0], rate=0.4)


def slopes(loss, parameters):
    """Gradients, zero where nothing flows."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def losses(model, seed=0):
    _, keep, hidden, targets = batch_of(seed)
    return model.losses(hidden, targets, keep, torch.Generator().manual_seed(seed))


def batch_of(seed):
    torch.manual_seed(seed)
    return batch()


def test_delta_embedding_by_hand():
    shared = torch.nn.Embedding(5, 3).double()
    both = DeltaEmbedding(shared)
    tokens = torch.tensor([[4, 0], [2, 2]])
    assert torch.equal(both(tokens), shared(tokens))  # the change begins at zero
    with torch.no_grad():
        both.delta[2] = torch.tensor([1.0, 2.0, 3.0])
    assert_same(both(tokens)[1, 0] - shared(tokens)[1, 0], torch.tensor([1.0, 2.0, 3.0]).double())
    assert torch.equal(both(tokens)[0], shared(tokens)[0])
    assert_same(both.weight, shared.weight + both.delta)
    with torch.no_grad():
        shared.weight[4] += 1  # what the generator learns, the discriminator reads
    assert_same(both(tokens)[0, 0], shared.weight[4])
    assert both.embedding_dim == 3
    both.weight.sum().backward()
    assert shared.weight.grad is None
    assert torch.equal(both.delta.grad, torch.ones(5, 3))


def test_merged_is_what_was_read_and_free():
    both = randomise(DeltaEmbedding(torch.nn.Embedding(5, 3)))
    merged, tokens = both.merged(), torch.arange(5)
    assert type(merged) is torch.nn.Embedding
    assert torch.equal(merged(tokens), both.weight)
    assert merged.weight.requires_grad
    with torch.no_grad():
        both.shared.weight.zero_()
        both.delta.zero_()
    assert merged.weight.abs().min() > 0


def test_gradients_are_disentangled():
    """The claim: under GDES the discriminator's loss gives nothing to E_G, and something to the change."""
    model = made()
    mlm, rtd = losses(model)
    words, delta = model.generator.encoder.words.weight, model.discriminator.encoder.words.delta
    assert model.discriminator.encoder.words.shared is model.generator.encoder.words
    for_words, for_delta = slopes(rtd, [words, delta])
    assert (for_words == 0).all()
    assert for_delta.abs().max() > 1e-4
    for_words, for_delta = slopes(mlm, [words, delta])
    assert for_words.abs().max() > 1e-4
    assert (for_delta == 0).all()


def test_no_loss_reaches_the_other_model_but_by_words():
    for share in (one_table, two_tables, table_and_change):
        model = made(share)
        mlm, rtd = losses(model)
        mine = {
            name: p for name, p in model.generator.named_parameters() if name != "encoder.words.weight"
        }  # all but words
        assert all((g == 0).all() for g in slopes(rtd, list(mine.values())))
        other = {name: p for name, p in model.discriminator.named_parameters() if "words" not in name}
        assert all((g == 0).all() for g in slopes(mlm, list(other.values())))
        assert all(g.abs().max() > 0 for g in slopes(rtd, list(other.values())))
        assert all(g.abs().max() > 0 for g in slopes(mlm, list(mine.values())))


def test_one_table_hears_both_losses():
    model = made(one_table)
    mlm, rtd = losses(model)
    words = model.generator.encoder.words.weight
    assert model.discriminator.encoder.words.weight is words
    (from_mlm,), (from_rtd,) = slopes(mlm, [words]), slopes(rtd, [words])
    assert min(from_mlm.abs().max(), from_rtd.abs().max()) > 1e-4
    assert_same(slopes(mlm + 50 * rtd, [words])[0], from_mlm + 50 * from_rtd)


def test_two_tables_hear_one_each():
    model = made(two_tables)
    mlm, rtd = losses(model)
    mine, other = model.generator.encoder.words.weight, model.discriminator.encoder.words.weight
    assert mine is not other
    assert (slopes(rtd, [mine])[0] == 0).all()
    assert (slopes(mlm, [other])[0] == 0).all()
    assert slopes(mlm, [mine])[0].abs().max() > 1e-4
    assert slopes(rtd, [other])[0].abs().max() > 1e-4


def test_at_the_start_the_change_is_asked_what_the_one_table_is():
    """With the change at zero both ways compute the same, and E_delta gets what E would get of the discriminator."""
    shared, changed = made(one_table), made(table_and_change)
    for part in ("generator", "discriminator"):
        values = dict(getattr(shared, part).named_parameters())
        with torch.no_grad():
            for name, parameter in getattr(changed, part).named_parameters():
                if "words" not in name:
                    parameter.copy_(values[name])
    with torch.no_grad():
        changed.generator.encoder.words.weight.copy_(shared.generator.encoder.words.weight)
        changed.discriminator.encoder.words.delta.zero_()
    one, two = losses(shared), losses(changed)
    assert_same(torch.stack(one), torch.stack(two))
    (wanted,) = slopes(one.rtd, [shared.generator.encoder.words.weight])
    (found,) = slopes(two.rtd, [changed.discriminator.encoder.words.delta])
    assert_same(found, wanted)


def test_losses_by_hand():
    model = made()
    x, keep, hidden, targets = batch_of(3)
    mlm, rtd = model.losses(hidden, targets, keep, torch.Generator().manual_seed(5))
    logits = model.generator(hidden, keep)
    asked = targets != IGNORED
    assert_same(mlm, cross_entropy(logits[asked], x[asked]))
    noise = torch.empty_like(logits[asked]).exponential_(generator=torch.Generator().manual_seed(5)).log()
    corrupt = x.clone()
    corrupt[asked] = (logits[asked] - noise).argmax(-1)
    verdicts = model.discriminator(corrupt, keep)
    assert_same(rtd, binary_cross_entropy_with_logits(verdicts[keep], (corrupt != x)[keep].double()))
    assert_differs(rtd, binary_cross_entropy_with_logits(verdicts, (corrupt != x).double()), by=1e-4)
    torch.manual_seed(7)
    total = model.loss(hidden, targets, keep)
    torch.manual_seed(7)
    mlm, rtd = model.losses(hidden, targets, keep)
    assert_same(total, mlm + 50 * rtd)
    model.weight = 3.0
    torch.manual_seed(7)
    assert_same(model.loss(hidden, targets, keep), mlm + 3 * rtd)


def test_nothing_hidden():
    model = made()
    x, keep, *_ = batch()
    mlm, rtd = model.losses(x, torch.full_like(x, IGNORED), keep)
    assert mlm == 0
    assert_same(
        rtd, binary_cross_entropy_with_logits(model.discriminator(x, keep)[keep], torch.zeros(keep.sum()).double())
    )


def test_the_head_by_hand():
    model, (x, keep, *_) = randomise(DeBERTaV3Discriminator(encoder(1))).eval(), batch()
    states = model.encoder(x, keep)
    hidden = model.norm(states + states[:, 0][:, None]) @ model.transform.weight.T + model.transform.bias
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    assert_same(model(x, keep), gelu @ model.verdict.weight[0] + model.verdict.bias)
    assert_differs(model(x)[keep], model(x, keep)[keep])
    assert model.norm.eps == 1e-7
    other = torch.where(keep, x, 7)
    assert not leaks(lambda x: model(x, keep), x, other, keep)
    replaced = torch.rand(B, N) < 0.5
    assert_same(model.loss(x, replaced), binary_cross_entropy_with_logits(model(x), replaced.double()))
    assert DeBERTaV3Discriminator(encoder(1).double()).verdict.weight.dtype == torch.float64
    assert DeBERTaV3Discriminator(encoder(1)).transform.weight.abs().max() <= 0.04


def test_training():
    """Both losses of one batch fall, under each way of sharing."""
    for share in (one_table, two_tables, table_and_change):
        torch.manual_seed(0)
        model = DeBERTaV3ForPreTraining(DeBERTaV3ForMaskedLM(encoder(1), 31), DeBERTaV3Discriminator(encoder(2)), share)
        _, keep, hidden, targets = batch()
        before = model.losses(hidden, targets, keep)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        train(model, model.loss, [(hidden, targets, keep)] * 60, optimizer)
        after = model.losses(hidden, targets, keep)
        assert after.mlm < 0.6 * before.mlm
        assert after.rtd < 0.9 * before.rtd


def test_parameters_are_counted_once():
    sizes = {
        share.__name__: sum(p.numel() for p in made(share).parameters())
        for share in (one_table, two_tables, table_and_change)
    }
    assert sizes["two_tables"] - sizes["one_table"] == V * D
    assert sizes["table_and_change"] == sizes["two_tables"]


def test_errors():
    wide = DeBERTaV3(V + 1, **SIZES, n_layers=1)
    with pytest.raises(ValueError, match=rf"generator's words are \({V}, {D}\) and discriminator's \({V + 1}, {D}\)"):
        DeBERTaV3ForPreTraining(DeBERTaV3ForMaskedLM(encoder(1), 31), DeBERTaV3Discriminator(wide))
