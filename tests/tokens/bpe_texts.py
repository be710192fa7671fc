"""What the tests of BPE share: real text, random text, and the reference's tokenizers."""

import json
import random
import unicodedata
from functools import cache
from pydoc_data.topics import topics

from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

# Characters of many kinds, and any other that this Python's Unicode knows
ODD = "aeE sS'tveLl 019_-.,!?\t\n\r\x0b\x1c\x1f\x85\xa0éßŉΣςЖ中文語한か²½Ⅷ٣\u180e\u2009\u2028"
ODD += "\u3000\u200b\u0301🙂👩\u200d🚀\ufeff\x00"
assigned = st.characters(exclude_categories=["Cs", "Cn"])
unicode_text = st.text(st.one_of(st.sampled_from(ODD), assigned), max_size=60)


@cache
def real_text() -> tuple[str, ...]:
    """The help of Python's language reference: 0.46 million characters of English."""
    return tuple(topics.values())


def random_words(n: int, seed: int = 0, letters: str = "abcd") -> dict[str, int]:
    """Words over few letters with small counts, so that there are many ties, repeats and ways to spell a piece."""
    generator = random.Random(seed)
    words = {"".join(generator.choices(letters, k=generator.randint(1, 9))) for _ in range(n)}
    return {word: generator.randint(1, 4) for word in sorted(words)}


def learned_by_tokenizers(words: dict[str, int], size: int, **options) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges that `tokenizers` learns from words, whose counts it is told by repeating them."""
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    reference.train_from_iterator(["\n".join([word] * count) for word, count in words.items()], trainer)
    return vocabulary_and_merges(reference)


def vocabulary_and_merges(reference: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(reference.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def byte_level_reference(vocabulary, merges, special=()) -> Tokenizer:
    reference = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens(list(special))
    return reference


def known(character: str) -> bool:
    return unicodedata.category(character) != "Cn"
