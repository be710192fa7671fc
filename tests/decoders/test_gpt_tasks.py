"""GPT on tasks: the texts by hand, the heads against transformers, the joint loss against its parts."""

import pytest
import torch
import transformers as hf

from helpers import assert_differs, assert_same, leaks, randomise
from papercode.decoders.gpt import GPT
from papercode.decoders.gpt_tasks import (
    GPTForChoices,
    GPTForClasses,
    TaskTokens,
    add_task_tokens,
    batched,
    joint_loss,
)
from papercode.decoders.gpt_training import language_loss

V, SIZES = 29, {"n_positions": 23, "d_model": 20, "n_heads": 5, "d_ff": 80, "n_layers": 2}
SPECIAL = TaskTokens(26, 27, 28)
S, D, E = 26, 27, 28


def decoder():
    return randomise(GPT(V, **SIZES)).eval()


def classes(n_classes=3):
    return randomise(GPTForClasses(decoder(), SPECIAL, n_classes), 1).eval()


def test_the_four_forms_of_figure_1():
    assert SPECIAL.classification([1, 2]) == [[S, 1, 2, E]]
    assert SPECIAL.entailment([1, 2], [3]) == [[S, 1, 2, D, 3, E]]
    assert SPECIAL.similarity([1, 2], [3]) == [[S, 1, 2, D, 3, E], [S, 3, D, 1, 2, E]]
    assert SPECIAL.choice([1, 2], [[3], [4, 5]]) == [[S, 1, 2, D, 3, E], [S, 1, 2, D, 4, 5, E]]


def test_batched_pads_on_the_right():
    tokens = batched([SPECIAL.similarity([1, 2], [3]), SPECIAL.similarity([4], [5])], padding=9)
    assert tokens.shape == (2, 2, 6)
    assert tokens[1].tolist() == [[S, 4, D, 5, E, 9], [S, 5, D, 4, E, 9]]
    for examples in ([], [[[1]], [[1], [2]]]):
        with pytest.raises(ValueError, match=r"examples have \[.*\] texts, they must have equally many"):
            batched(examples)


EXAMPLES = [[1, 2, 3, 4, 5], [6], [7, 8, 9]]


def test_new_tokens_leave_the_old_as_they_were():
    model = randomise(GPT(11, **SIZES)).eval()
    text = torch.randint(11, (2, 5))
    before = model(text).detach()
    special = add_task_tokens(model)
    assert special == TaskTokens(11, 12, 13)
    assert_same(model(text)[..., :11], before)
    assert model(text).shape[-1] == 14
    assert 0.005 < model.words.weight[-3:].std() < 0.05
    assert model.words.weight.dtype == torch.float64
    assert model.words.weight.requires_grad


def test_choices_and_language_equal_transformers(parity):
    config = hf.OpenAIGPTConfig(vocab_size=V, n_embd=20, n_layer=2, n_head=5, n_positions=23, num_labels=1)
    reference = randomise(hf.OpenAIGPTDoubleHeadsModel(config), 3).eval()
    ours = GPTForChoices(decoder(), SPECIAL).double().eval()
    copied(ours.decoder, reference.transformer)
    ours.classifier.load_state_dict(reference.multiple_choice_head.summary.state_dict())
    tokens = batched([SPECIAL.choice(text, [[1], [2, 3], [4]]) for text in EXAMPLES])
    last = (tokens == E).long().argmax(-1)
    with torch.no_grad():
        theirs = reference(tokens, mc_token_ids=last)
    found = ours.decoder(tokens.flatten(0, 1)).unflatten(0, (3, 3))
    parity("GPT", "transformers.OpenAIGPTDoubleHeadsModel", "2 layers, 3 choices",
           [ours(tokens), found], [theirs.mc_logits, theirs.logits])  # fmt: skip
    assert_differs(ours(tokens), ours(tokens.flip(1)))
    assert_same(ours(tokens), ours(tokens.flip(1)).flip(1))


def test_classes_equal_transformers(parity):
    config = hf.OpenAIGPTConfig(
        vocab_size=V, n_embd=20, n_layer=2, n_head=5, n_positions=23, num_labels=3, pad_token_id=0
    )
    reference = randomise(hf.OpenAIGPTForSequenceClassification(config), 3).eval()
    ours = classes()
    copied(ours.decoder, reference.transformer)
    ours.classifier.weight.data = reference.score.weight.data
    ours.classifier.bias.data.zero_()
    tokens = batched([SPECIAL.classification(text) for text in EXAMPLES])
    with torch.no_grad():
        theirs = reference(tokens[:, 0]).logits
    parity("GPT", "transformers.OpenAIGPTForSequenceClassification", "2 layers, 3 classes", ours(tokens), theirs)
    ours.classifier.bias.data.fill_(0.1)
    assert_differs(ours(tokens), theirs)


def copied(ours, theirs):
    """From transformers' modules, by hand, without the rules of checkpoints."""
    ours.words.weight.data, ours.positions.weight.data = (
        theirs.tokens_embed.weight.data,
        theirs.positions_embed.weight.data,
    )
    for mine, other in zip(ours.layers, theirs.h, strict=True):
        for i, name in enumerate("qkv"):
            getattr(mine.attention, name).weight.data = other.attn.c_attn.weight.data[:, 20 * i : 20 * i + 20].T
            getattr(mine.attention, name).bias.data = other.attn.c_attn.bias.data[20 * i : 20 * i + 20]
        for one, two in (
            (mine.attention.o, other.attn.c_proj),
            (mine.feed_forward.expand, other.mlp.c_fc),
            (mine.feed_forward.contract, other.mlp.c_proj),
        ):
            one.weight.data, one.bias.data = two.weight.data.T, two.bias.data
        for one, two in zip(mine.residuals, (other.ln_1, other.ln_2), strict=True):
            one.norm.gain.data, one.norm.bias.data = two.weight.data, two.bias.data


def test_orders_are_added_so_that_they_do_not_matter():
    model = classes()
    there, back = (batched([SPECIAL.similarity(*pair)]) for pair in (([1, 2], [3]), ([3], [1, 2])))
    assert_same(model(there), model(back))
    one, two = (model.decoder.encode(there[:, i])[:, -1] for i in range(2))
    assert_same(model(there), model.classifier(one + two))
    assert_differs(model(there), model.classifier((one + two) / 2))
    first, second = (batched([SPECIAL.entailment(*pair)]) for pair in (([1, 2], [3]), ([3], [1, 2])))
    assert_differs(model(first), model(second))


def test_padding_is_not_read():
    model = classes()
    tokens = batched([SPECIAL.classification(text) for text in EXAMPLES])
    changed = batched([SPECIAL.classification(text) for text in EXAMPLES], padding=5)
    assert not torch.equal(tokens, changed)
    assert not leaks(lambda t: model.extracted(t)[1][None], tokens, changed, torch.tensor([True]))
    assert not leaks(model, tokens, changed, torch.ones(3, dtype=torch.bool))
    alone = batched([SPECIAL.classification(EXAMPLES[1])])
    assert_same(model(tokens)[1:2], model(alone))


def test_the_joint_loss_is_its_parts():
    model, labels = classes(), torch.tensor([2, 0, 1])
    tokens = batched([SPECIAL.classification(text) for text in EXAMPLES])
    l2 = torch.stack([-model(tokens[i : i + 1]).log_softmax(-1)[0, labels[i]] for i in range(3)]).mean()
    texts = [SPECIAL.classification(text)[0] for text in EXAMPLES]
    each = [
        language_loss(model.decoder(torch.tensor([text])), torch.tensor([text])) * (len(text) - 1) for text in texts
    ]
    l1 = torch.stack(each).sum() / sum(len(text) - 1 for text in texts)
    assert_same(joint_loss(model, tokens, labels), l2 + 0.5 * l1)
    assert_same(joint_loss(model, tokens, labels, weight=0), l2)
    assert_same(joint_loss(model, tokens, labels, weight=2.0), l2 + 2 * l1)
    assert_differs(joint_loss(model, tokens, labels), l2)


def test_everything_is_trained():
    for model, tokens in (
        (classes(), batched([SPECIAL.similarity(text, [3]) for text in EXAMPLES])),
        (randomise(GPTForChoices(decoder(), SPECIAL)), batched([SPECIAL.choice(t, [[1], [2], [3]]) for t in EXAMPLES])),
    ):
        joint_loss(model, tokens, torch.tensor([0, 1, 2])).backward()
        none = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert none == []


def test_dropout_stands_before_the_new_layer():
    model = GPTForClasses(decoder(), SPECIAL, 3, dropout=0.999).train()
    model.decoder.eval()
    tokens = batched([SPECIAL.classification(text) for text in EXAMPLES])
    assert_same(model(tokens), model.classifier.bias.expand(3, 3))
    assert not torch.equal(model(tokens), model.eval()(tokens))
    assert GPTForClasses(decoder(), SPECIAL, 3).dropout.p == 0.1


def test_the_new_layer_starts_like_the_others():
    torch.manual_seed(0)
    layer = GPTForClasses(GPT(V, **{**SIZES, "d_model": 500}), SPECIAL, 7).classifier
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.bias.any()


def test_errors():
    with pytest.raises(ValueError, match="n_classes=0 must be at least 1"):
        GPTForClasses(decoder(), SPECIAL, 0)
    for text in ([1, 2], [1, E, E]):
        with pytest.raises(ValueError, match=r"each text must have one extract token \(28\), at its end"):
            classes()(torch.tensor([[text]]))
    with pytest.raises(ValueError, match="weight=-1 must be at least 0"):
        joint_loss(classes(), batched([SPECIAL.classification([1])]), torch.tensor([0]), weight=-1)
