"""News in miniature: well-formed tags, the same for the same seed, names that are new."""

import pytest
import torch

from papercode.data.tagging import TYPES, Vocabulary, bio_to_iobes, sentences
from papercode.evaluation.spans import bio_spans, conll_spans, iobes_spans

CORPUS = sentences(300, seed=1)


def test_the_same_for_the_same_seed():
    assert sentences(300, seed=1) == CORPUS
    assert sentences(30, seed=1) == CORPUS[:30]
    assert sentences(300, seed=2) != CORPUS


def test_tags_are_well_formed():
    for words, tags in CORPUS:
        assert len(words) == len(tags)
        assert bio_spans(tags) == conll_spans(tags) != []
        assert all(
            (tag != "O") or word.islower() or not word.isalpha() or word == "May" for word, tag in zip(words, tags)
        )


def test_what_names_look_like():
    found = {kind: set() for kind in TYPES}
    for words, tags in CORPUS:
        for kind, first, last in bio_spans(tags):
            found[kind].add(tuple(words[first:last]))
    assert {len(name) for name in found["PER"]} == {len(name) for name in found["LOC"]} == {1, 2}
    assert all(name[-1].endswith(("son", "ski", "er")) for name in found["PER"])
    assert all(name[-1].endswith(("ville", "burg", "ton")) for name in found["LOC"])
    assert all(name[0] == "New" for name in found["LOC"] if len(name) == 2)
    assert all(name[-1] == "Ltd" or name[:2] == ("Bank", "of") for name in found["ORG"])
    assert {len(name) for name in found["ORG"]} == {2, 3}


def test_where_the_frame_does_not_tell_all_types_stand():
    found = {tag for words, tags in CORPUS if words[0] == "everybody" for tag in tags}
    assert found >= {f"B-{kind}" for kind in TYPES}
    found = {tag for words, tags in CORPUS if words[0] == "shares" for tag in tags}
    assert found == {"O", "B-ORG", "I-ORG", "B-PER", "I-PER"}


def test_most_names_of_another_seed_are_new():
    known = {word for words, _ in CORPUS for word in words}
    names = [word for words, tags in sentences(300, seed=2) for word, tag in zip(words, tags) if tag != "O"]
    names = [name for name in names if name not in ("New", "Bank", "of", "Ltd")]
    assert sum(name in known for name in names) < 0.2 * len(names)


def test_bio_to_iobes():
    tags = ["B-X", "I-X", "I-X", "O", "B-X", "B-X", "I-X", "B-Y", "O", "B-Y"]
    assert bio_to_iobes(tags) == ["B-X", "I-X", "E-X", "O", "S-X", "B-X", "E-X", "S-Y", "O", "S-Y"]
    assert bio_to_iobes([]) == []
    for _, tags in CORPUS:
        assert iobes_spans(bio_to_iobes(tags)) == bio_spans(tags)
    for bad in (["I-X"], ["O", "I-X"], ["B-X", "I-Y"], ["B-X", "O", "I-X"]):
        with pytest.raises(ValueError, match=r"I-. after .* is not BIO"):
            bio_to_iobes(bad)


def test_vocabulary():
    corpus = [(["ab", "ba", "ab"], ["O", "B-X", "O"]), (["c"], ["B-Y"])]
    vocabulary = Vocabulary.of(corpus)
    assert (vocabulary.words, vocabulary.chars, vocabulary.tags) == (["ab"], ["a", "b", "c"], ["B-X", "B-Y", "O"])
    assert vocabulary.sizes == (3, 5, 3)
    assert Vocabulary.of(corpus, at_least=1).words == ["ab", "ba", "c"]
    words, chars, tags, lengths = vocabulary.tensors([*corpus, (["cq", "ab"], ["O", "O"])])
    assert words.tolist() == [[2, 1, 2], [1, 0, 0], [1, 2, 0]]
    assert chars[:, :2].tolist() == [[[2, 3], [3, 2]], [[4, 0], [0, 0]], [[4, 1], [2, 3]]]
    assert tags.tolist() == [[2, 0, 2], [1, 0, 0], [2, 2, 0]]
    assert lengths.tolist() == [3, 1, 2]
    assert vocabulary.names(tags, lengths) == [["O", "B-X", "O"], ["B-Y"], ["O", "O"]]


def test_a_corpus_there_and_back():
    vocabulary = Vocabulary.of(CORPUS)
    words, chars, tags, lengths = vocabulary.tensors(CORPUS)
    assert words.shape == tags.shape == chars.shape[:2] == (300, lengths.max())
    assert vocabulary.names(tags, lengths) == [tags for _, tags in CORPUS]
    assert words.max() < vocabulary.sizes[0]
    assert chars.max() < vocabulary.sizes[1]
    assert ((words == 0) == (torch.arange(words.shape[1]) >= lengths[:, None])).all()
    assert ((chars[..., 0] == 0) == (words == 0)).all()


def test_errors():
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        sentences(0)
    with pytest.raises(ValueError, match=r"tags \['B-Q'\] are not among \['B-LOC'"):
        Vocabulary.of(CORPUS).tensors([(["a"], ["B-Q"])])
