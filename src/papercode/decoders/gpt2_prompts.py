r"""Tasks put as texts to continue [@radford2019language, section 3]: nothing is trained, the prompt says what to do.

Imports: nothing from an older paper's module.

Differences from the paper:
    * Of question answering it tells that the document, the conversation so far and a last "A:" are given; that the
      questions begin with "Q:" and stand on lines of their own is ours.
    * It does not say what ends a sentence: here it is ".", "!" or "?" before a space or the end.
"""

import re
from collections.abc import Sequence


def summary_prompt(article: str) -> str:
    """The article and "TL;DR:" (section 3.6)."""
    return f"{article}\nTL;DR:"


def first_sentences(text: str, n: int = 3) -> str:
    """The first n sentences of what was generated: 3 are a summary, 1 is a translation (sections 3.6 and 3.7).

    Raises:
        ValueError: If n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    return " ".join(re.split(r"(?<=[.!?])\s+", text.strip())[:n])


def translation_prompt(pairs: Sequence[tuple[str, str]], sentence: str) -> str:
    """Lines "english sentence = french sentence", and one that wants its right side (section 3.7).

    Args:
        pairs: Examples, which tell what the task is; their weights are not touched.
        sentence: To be translated.
    """
    return "\n".join([*(f"{one} = {other}" for one, other in pairs), f"{sentence} ="])


def answer_prompt(document: str, turns: Sequence[tuple[str, str]], question: str) -> str:
    """A document, the conversation about it so far, the question, and "A:" (section 3.5).

    Args:
        document: What is asked about.
        turns: Earlier questions with their answers.
        question: The next one.
    """
    said = [line for asked, answer in turns for line in (f"Q: {asked}", f"A: {answer}")]
    return "\n".join([document, *said, f"Q: {question}", "A:"])
