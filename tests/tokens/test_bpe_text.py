"""Special tokens and words."""

import pytest

from papercode.tokens.bpe_text import count_words, special_pattern


def test_words_are_counted_in_their_order():
    counts = count_words(["b a b", "a c"], str.split)
    assert list(counts.items()) == [("b", 2), ("a", 2), ("c", 1)]


def test_special_tokens_are_not_counted():
    assert count_words(["a <s>b", "<s> a"], str.split, ["<s>"]) == {"a": 2, "b": 1}
    assert count_words(["a <s>b"], str.split) == {"a": 1, "<s>b": 1}


def test_one_text_is_not_several():
    with pytest.raises(TypeError, match="texts must be several texts"):
        count_words("a b", str.split)


def test_the_pattern_splits_at_the_longest_token():
    pattern = special_pattern(["<a>", "<a>+", "."])
    assert pattern.split("x<a>+<a>y.z") == ["x", "<a>+", "", "<a>", "y", ".", "z"]
    assert special_pattern([]) is None
    for tokens in (["<a>", ""], ["<a>", "<a>"]):
        with pytest.raises(ValueError, match="must be distinct tokens, none of them empty"):
            special_pattern(tokens)
