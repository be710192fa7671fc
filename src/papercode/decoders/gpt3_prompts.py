r"""Prompts of zero, one and few examples [@brown2020language]: a task is told, not trained.

Imports: nothing from an older paper's module.

Symbols: the paper's $K$ = number of examples, $n_{ctx}$ = limit, the longest prompt together with what is to follow.

Differences from the paper:
    * It draws K examples at random for each query and stops before the context is full; here more examples may be
      given than fit, and those that come first are left out.
    * Words that go before the answer of every example are part of the template, as in its appendix G.
"""

from collections.abc import Callable, Sequence


def few_shot_prompt(
    query: str,
    examples: Sequence[tuple[str, str]] = (),
    *,
    instruction: str = "",
    template: str = "{} => {}",
    separator: str = "\n",
    limit: int | None = None,
    length: Callable[[str], int] = len,
) -> str:
    r"""A prompt that ends where the answer to `query` begins (Figure 2.1).

    The parts, each of which may be missing, are joined by the separator: instruction, examples, query. Nothing follows
    the template's words before the answer, not even a space: the first token of an answer is usually one with a space
    in front.

    Args:
        query: What shall be answered.
        examples: Pairs of a question and its answer; none = zero-shot, one = one-shot.
        instruction: The task in words, stands first.
        template: Of an example, with one pair of braces for the question and one for the answer.
        separator: One or two newlines in the paper, depending on the task (section 2.4).
        limit: The prompt has at most this length. If it would be longer, examples are left out whole, from the first
            on, so that those next to the query stay; instruction and query always stay.
        length: Of a text in the unit of `limit`, for instance `lambda text: len(tokenizer.encode(text))`.

    Raises:
        ValueError: If the template has not exactly two pairs of braces, or instruction and query alone pass the limit.
    """
    if template.count("{}") != 2:
        raise ValueError(f"template={template!r} must have one {{}} for the question and one for the answer")
    before, between, after = template.split("{}")
    asked = (before + query + between).rstrip(" ")
    shown = [before + question + between + answer + after for question, answer in examples]
    head = [instruction] if instruction else []
    for first in range(len(shown) + 1):
        prompt = separator.join([*head, *shown[first:], asked])
        if limit is None or length(prompt) <= limit:
            return prompt
    raise ValueError(f"instruction and query alone have length {length(prompt)}, more than limit={limit}")
