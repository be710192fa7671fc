"""BLEU against sacrebleu, by hand, and against a variant that goes by its name."""

import math
import random
from collections import Counter

import pytest
import sacrebleu

from papercode.evaluation.bleu import bleu, brevity_penalty, closest_length, found


def words(text):
    return text.split()


WORDS = words("the a cat dog sat ran on mat")


def reference(hypotheses, references, n=4):
    """sacrebleu's score; it wants the first reference of all sentences, then the second …, None where there is none."""
    most = max(map(len, references))
    streams = [[" ".join(texts[i]) if i < len(texts) else None for texts in references] for i in range(most)]
    metric = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True, max_ngram_order=n)
    return metric.corpus_score([" ".join(text) for text in hypotheses], streams).score / 100


def corpus(draw, sentences, *, most_references=1, shortest=1, longest=12):
    def text():
        return [draw.choice(WORDS) for _ in range(draw.randint(shortest, longest))]

    references = [[text() for _ in range(draw.randint(1, most_references))] for _ in range(sentences)]
    hypotheses = []
    for texts in references:
        noisy = [draw.choice(WORDS) if draw.random() < 0.2 else word for word in draw.choice(texts)]
        hypotheses.append(noisy[: draw.randint(shortest, 2 * longest)] + text()[: draw.choice([0, 0, 3])])
    return hypotheses, references


@pytest.mark.parametrize("most_references", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_random_corpora_score_as_in_sacrebleu(most_references, n):
    draw, scores, excess = random.Random(n), [], []
    for _ in range(40):
        hypotheses, references = corpus(draw, draw.randint(1, 9), most_references=most_references)
        score = bleu(hypotheses, references, n)
        assert score == pytest.approx(reference(hypotheses, references, n), abs=1e-12)
        wanted = sum(closest_length(len(text), texts) for text, texts in zip(hypotheses, references))
        scores.append(score)
        excess.append(sum(map(len, hypotheses)) - wanted)
    assert sum(score > 0 for score in scores) >= 20
    assert min(excess) < 0 < max(excess)  # both sides of the brevity penalty


def test_shorter_and_longer_corpora_than_the_references():
    draw = random.Random(0)
    hypotheses, references = corpus(draw, 7, shortest=6)
    twice = [text + text for text in hypotheses]
    half = [text[: len(text) // 2 + 1] for text in hypotheses]
    for texts in (hypotheses, twice, half):
        assert bleu(texts, references, 2) == pytest.approx(reference(texts, references, 2), abs=1e-12)
    assert sum(map(len, half)) < sum(len(texts[0]) for texts in references) < sum(map(len, twice))


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        ([[]], [[words("the cat sat on")]]),  # nothing said
        ([[], words("the cat sat on a mat")], [[words("a cat")], [words("the cat sat on the mat")]]),
        ([words("the cat sat")], [[words("the cat sat")]]),  # right, but too short to have a 4-gram
        ([words("the cat sat on"), ["dog"]], [[words("the cat sat on")], [words("dog")]]),  # one of them has one
        ([words("dog dog dog dog")], [[words("the cat sat on")]]),  # nothing right
        ([words("the cat sat on")], [[words("the cat sat on")]]),  # all right
    ],
)
def test_edge_cases_score_as_in_sacrebleu(hypotheses, references):
    assert bleu(hypotheses, references) == pytest.approx(reference(hypotheses, references), abs=1e-12)


def test_the_papers_examples():
    # section 2.1: a repeated word counts as often as one reference has it
    references = [words("the cat is on the mat"), words("there is a cat on the mat")]
    assert found(words("the the the the the the the"), references, 1) == (2, 7)
    # section 2.2.2: with references of 12, 15 and 17 words, 12 words are long enough
    texts = [["x"] * length for length in (17, 12, 15)]
    assert closest_length(12, texts) == 12
    assert brevity_penalty(12, 12) == 1


def test_the_nearest_length_and_of_two_the_shorter():
    texts = [["x"] * length for length in (9, 4, 2)]
    assert [closest_length(length, texts) for length in (0, 3, 5, 6, 7, 50)] == [2, 2, 4, 4, 9, 9]


def test_brevity_by_hand():
    assert brevity_penalty(5, 10) == pytest.approx(math.exp(-1))
    assert brevity_penalty(10, 5) == brevity_penalty(0, 0) == 1
    assert brevity_penalty(0, 1) == 0


def test_a_score_by_hand():
    # one wrong word of six: it spoils one unigram, two bigrams, two trigrams, two 4-grams
    hypothesis, text = words("the cat sat on a mat"), words("the cat sat on the mat")
    assert [found(hypothesis, [text], n) for n in (1, 2, 3, 4)] == [(5, 6), (3, 5), (2, 4), (1, 3)]
    assert bleu([hypothesis], [[text]]) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert bleu([hypothesis[:3]], [[text]], 2) == pytest.approx(math.exp(1 - 6 / 3))


def test_it_is_of_the_corpus_and_no_mean_of_sentences():
    hypotheses = [words("the cat sat on the mat"), words("a dog")]
    references = [[words("the cat sat on the mat")], [words("a cat")]]
    alone = [bleu([text], [texts], 2) for text, texts in zip(hypotheses, references)]
    assert bleu(hypotheses, references, 2) == pytest.approx(reference(hypotheses, references, 2), abs=1e-12)
    assert abs(bleu(hypotheses, references, 2) - sum(alone) / 2) > 0.02


def test_an_n_gram_is_clipped_by_one_reference_and_not_by_all_together():
    references = [words("a b"), words("b a")]
    assert found(words("a a"), references, 1) == (1, 2)
    assert found(words("a b a"), references, 2) == (2, 2)  # each bigram in another reference


def test_words_may_be_anything_that_can_be_compared():
    assert bleu([[1, 2, 3, 4, 5]], [[[1, 2, 3, 4, 5]]]) == 1
    assert bleu(["abcde"], [["abcde", "x"]]) == 1


# the variant of a widespread textbook, as a control: it is another measure


def textbook(hypothesis, text, n):
    score = math.exp(min(0, 1 - len(text) / len(hypothesis)))
    for k in range(1, n + 1):
        left, matches = Counter(zip(*(text[i:] for i in range(k)))), 0
        for gram in zip(*(hypothesis[i:] for i in range(k))):
            matches += left[gram] > 0
            left[gram] -= left[gram] > 0
        score *= (matches / (len(hypothesis) - k + 1)) ** (0.5**k)
    return score


def test_the_textbook_variant_is_no_bleu():
    hypothesis, text = words("the cat sat on a mat"), words("the cat sat on the mat")
    score, variant = bleu([hypothesis], [[text]]), textbook(hypothesis, text, 4)
    assert (round(score, 3), round(variant, 3)) == (0.537, 0.688)
    # the counts are the same, also of repeated words: what differs are the weights, 1/2, 1/4, 1/8, 1/16
    shares = [a / b for a, b in (found(hypothesis, [text], n) for n in (1, 2, 3, 4))]
    assert variant == pytest.approx(math.prod(share ** (0.5**n) for n, share in enumerate(shares, 1)))
    repeated = words("the the the the")
    assert textbook(repeated, text, 1) == pytest.approx(math.sqrt(found(repeated, [text], 1)[0] / 4) * math.exp(-0.5))
    # they do not add up to 1: where all shares are x, BLEU is x and the variant x^(15/16)
    assert sum(0.5**n for n in (1, 2, 3, 4)) == 15 / 16


def test_the_textbook_variant_ranks_otherwise():
    """It prefers right words in a wrong order, BLEU right phrases: a long n-gram has 1/16 of the weight, not 1/4."""
    text = words("the cat sat on a mat")
    phrases, shuffled = words("the cat sat on dog ran"), words("the cat sat mat on a")
    ours = [bleu([tried], [[text]], 3) for tried in (phrases, shuffled)]
    theirs = [textbook(tried, text, 3) for tried in (phrases, shuffled)]
    assert ours[0] > ours[1]
    assert theirs[0] < theirs[1]


def test_a_perfect_sentence_scores_1_in_both():
    text = words("the cat sat on the mat")
    assert bleu([text], [[text]]) == textbook(text, text, 4) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "hypotheses=0 and references=0"),
        (([["a"]], []), "hypotheses=1 and references=0"),
        (([["a"], ["b"]], [[["a"]], []]), "one list of references each"),
        (([["a"]], [[["a"]]], 0), "n=0 must be at least 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        bleu(*arguments)
