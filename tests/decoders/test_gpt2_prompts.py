"""Prompts, character by character."""

import pytest

from papercode.decoders.gpt2_prompts import answer_prompt, first_sentences, summary_prompt, translation_prompt


def test_prompts():
    assert summary_prompt("Long story.") == "Long story.\nTL;DR:"
    assert translation_prompt([("a", "b"), ("c", "d")], "e") == "a = b\nc = d\ne ="
    assert translation_prompt([], "e") == "e ="
    assert answer_prompt("Doc.", [("One?", "1")], "Two?") == "Doc.\nQ: One?\nA: 1\nQ: Two?\nA:"
    assert answer_prompt("Doc.", [], "Two?") == "Doc.\nQ: Two?\nA:"


def test_first_sentences():
    text = " One. Two 2.5 times!\nThree? Four."
    assert first_sentences(text) == "One. Two 2.5 times! Three?"
    assert first_sentences(text, 1) == "One."
    assert first_sentences(text, 9) == "One. Two 2.5 times! Three? Four."
    assert first_sentences("") == ""
    with pytest.raises(ValueError, match="n=0 must be at least 1"):
        first_sentences(text, 0)
