"""Filling blanks and scoring classes, one token at a time and by hand."""

import random

import pytest
import torch

from helpers import assert_differs, assert_same, randomise
from papercode.attention.transformer import MultiHeadAttention, attention
from papercode.decoding import beam_search
from papercode.encoder_decoders.glm import GLM
from papercode.encoder_decoders.glm_corruption import assemble, blank_out, collate, short_spans
from papercode.encoder_decoders.glm_filling import cloze_scores, fill, filled, filling_steps
from papercode.training import train

V, MASK, START, END = 19, 16, 17, 18
IDS = {"start": START, "end": END}
PART_A = [3, MASK, 5, 6, MASK, 8]


def varied(seed=0):
    """A random model whose answers depend on the text; a bias behind the last norm would always say the same."""
    model = randomise(GLM(V, n_positions=23, d_model=14, n_heads=2, n_layers=2), seed, std=0.6).eval()
    torch.nn.init.zeros_(model.norm.bias)
    return model


@pytest.fixture
def glm():
    return varied()


def next_logits(glm, part_a, answers):
    """Logits after the last token of the last answer, everything computed anew."""
    whole = assemble(part_a, answers, **IDS)
    with torch.no_grad():
        return glm(*(x[None] for x in whole.inputs()))[0, -1]


@pytest.mark.parametrize("order", [None, [1, 0]])
def test_equals_greedy_without_a_cache(glm, order):
    answers = []
    for i in order or [0, 1]:
        answer = []
        while len(answer) < 5:
            token = next_logits(glm, PART_A, [*answers, ([1, 4][i], answer)]).argmax().item()
            if token == END:
                break
            answer.append(token)
        answers.append(([1, 4][i], answer))
    found = fill(glm, PART_A, mask=MASK, max_new=5, order=order, **IDS)
    assert found == [answer for _, answer in sorted(answers)]
    assert all(layer.attend is attention for layer in glm.modules() if isinstance(layer, MultiHeadAttention))


def test_the_order_matters(glm):
    texts = [[random.Random(seed).randrange(16) for _ in range(6)] for seed in range(12)]
    for text in texts:
        text[1] = text[4] = MASK
    one, other = ([fill(glm, t, mask=MASK, max_new=4, order=o, **IDS) for t in texts] for o in ([0, 1], [1, 0]))
    assert one != other


def test_beam_search_uses_the_cache(glm):
    head = assemble(PART_A, [(1, [2, 9]), (4, [])], **IDS)
    with filling_steps(glm, head) as step:
        best, scores = beam_search(step, head.tokens[None], end=END, max_new=4, beam=3, penalty=lambda n: 1.0)

    def step_anew(tokens, parents):
        rows = [next_logits(glm, PART_A, [(1, [2, 9]), (4, row[len(head.tokens) :])]) for row in tokens.tolist()]
        return torch.stack(rows)

    expected, expected_scores = beam_search(
        step_anew, head.tokens[None], end=END, max_new=4, beam=3, penalty=lambda n: 1.0
    )
    assert torch.equal(best, expected)
    assert_same(scores, expected_scores)


def test_an_answer_ends_at_its_end():
    class Counting(torch.nn.Module):
        """Says 4, then 5, then END, whatever it reads."""

        def forward(self, tokens, positions, inner, context):
            said = torch.tensor([0, 4, 5, END])[inner.clamp(max=3)]
            return torch.nn.functional.one_hot(said, V).double()

    assert fill(Counting(), PART_A, mask=MASK, max_new=9, **IDS) == [[4, 5], [4, 5]]
    assert fill(Counting(), PART_A, mask=MASK, max_new=1, **IDS) == [[4], [4]]


def test_filled():
    assert filled(PART_A, [[1], [2, 2]], mask=MASK) == [3, 1, 5, 6, 2, 2, 8]
    assert filled(PART_A, [[], []], mask=MASK) == [3, 5, 6, 8]
    with pytest.raises(ValueError, match="there are 1 answers to 2 mask tokens"):
        filled(PART_A, [[1]], mask=MASK)


# cloze

TEXTS = [[3, 4, MASK], [MASK, 9], [7, MASK, 7, 7, 2]]
CLASSES = [[5], [6, 7], [1, 2, 3]]


@pytest.mark.parametrize("closed", [False, True])
def test_cloze_scores_one_token_at_a_time(glm, closed):
    found = cloze_scores(glm, TEXTS, CLASSES, mask=MASK, closed=closed, **IDS).detach()
    for b, text in enumerate(TEXTS):
        for c, answer in enumerate(CLASSES):
            said = [*answer, END] if closed else answer
            logs = [
                next_logits(glm, text, [(text.index(MASK), answer[:i])]).log_softmax(-1)[t] for i, t in enumerate(said)
            ]
            assert_same(found[b, c], sum(logs))
    other = cloze_scores(glm, TEXTS, CLASSES, mask=MASK, closed=not closed, **IDS)
    assert_differs(other.detach(), found)


def test_one_token_classes_are_a_softmax_over_the_vocabulary(glm):
    scores = cloze_scores(glm, TEXTS[:1], [[t] for t in range(V)], mask=MASK, **IDS)
    assert scores.exp().sum().item() == pytest.approx(1)


def test_the_same_cloze_is_a_blank_filled():
    """Understanding and generation are one function: the likeliest single token is what greedy filling writes."""
    glm = varied(3)
    best = cloze_scores(glm, TEXTS[:1], [[t] for t in range(V)], mask=MASK, **IDS).argmax().item()
    assert best != END
    assert fill(glm, TEXTS[0], mask=MASK, max_new=1, **IDS) == [[best]]


def test_fine_tuning_learns():
    """Which of two tokens is in the text? Cross entropy over the classes' scores, as in section 2.4."""
    glm = GLM(V, n_positions=9, d_model=16, n_heads=2, n_layers=1, dropout=0.0)
    draw = random.Random(0)

    def batches():
        while True:
            labels = [draw.randrange(2) for _ in range(32)]
            yield [[*draw.sample([8, 9, 10, [2, 3][y]], 4), MASK] for y in labels], torch.tensor(labels)

    def loss(texts, labels):
        scores = cloze_scores(glm, texts, [[5], [6, 7]], mask=MASK, **IDS)
        return torch.nn.functional.cross_entropy(scores, labels)

    stream = batches()
    train(glm, loss, (next(stream) for _ in range(60)), torch.optim.Adam(glm.parameters(), lr=0.01))
    texts, labels = next(stream)
    assert (cloze_scores(glm, texts, [[5], [6, 7]], mask=MASK, **IDS).argmax(-1) == labels).all()


def test_pretraining_learns_to_fill():
    """Texts that count upwards: what is in a blank follows from what stands around it."""
    torch.manual_seed(0)
    glm = GLM(V, n_positions=16, d_model=32, n_heads=2, n_layers=2, dropout=0.0)
    draw = random.Random(0)

    def batch():
        texts = []
        for _ in range(32):
            first = draw.randrange(8)
            text = list(range(first, first + 8))
            texts.append(blank_out(text, short_spans(8, draw, ratio=0.3), mask=MASK, **IDS))
        return collate(texts)

    def loss(blanks):
        return torch.nn.functional.cross_entropy(glm(*blanks.inputs()).flatten(0, 1), blanks.targets.flatten())

    train(glm, loss, ((batch(),) for _ in range(120)), torch.optim.Adam(glm.parameters(), lr=0.01))
    glm.eval()
    assert fill(glm, [2, 3, MASK, 7, 8, 9], mask=MASK, max_new=6, **IDS) == [[4, 5, 6]]
    assert fill(glm, [5, 6, 7, MASK, 9, 10, 11, 12], mask=MASK, max_new=6, **IDS) == [[8]]


def test_refused(glm):
    with pytest.raises(ValueError, match="part_a has no mask token 16"):
        fill(glm, [1, 2], mask=MASK, max_new=3, **IDS)
    with pytest.raises(ValueError, match=r"order=\[0\] is no permutation of 2 blanks"):
        fill(glm, PART_A, mask=MASK, max_new=3, order=[0], **IDS)
    with pytest.raises(ValueError, match="a cloze text has one mask token 16, this one has 2"):
        cloze_scores(glm, [PART_A], CLASSES, mask=MASK, **IDS)
    for classes in ([], [[1], []]):
        with pytest.raises(ValueError, match=r"verbalizers=.* must hold at least one token each"):
            cloze_scores(glm, TEXTS, classes, mask=MASK, **IDS)
