"""Prompts as in Figure 2.1."""

import pytest

from papercode.decoders.gpt3_prompts import few_shot_prompt

EXAMPLES = [("sea otter", "loutre de mer"), ("peppermint", "menthe poivrée"), ("plush giraffe", "girafe peluche")]
TASK = "Translate English to French:"


def test_zero_one_and_few():
    """By hand: the three prompts of Figure 2.1."""
    assert few_shot_prompt("cheese", instruction=TASK) == "Translate English to French:\ncheese =>"
    one = few_shot_prompt("cheese", EXAMPLES[:1], instruction=TASK)
    assert one == "Translate English to French:\nsea otter => loutre de mer\ncheese =>"
    few = few_shot_prompt("cheese", EXAMPLES, instruction=TASK)
    assert few.split("\n") == [
        TASK,
        "sea otter => loutre de mer",
        "peppermint => menthe poivrée",
        "plush giraffe => girafe peluche",
        "cheese =>",
    ]


def test_parts_may_be_missing():
    assert few_shot_prompt("cheese") == "cheese =>"
    assert few_shot_prompt("b", [("a", "1")], template="Q: {}\nA: {}.", separator="\n\n") == "Q: a\nA: 1.\n\nQ: b\nA:"


def test_braces_in_the_text_are_text():
    assert few_shot_prompt("{}", [("{x}", "{}")], template="{}={}") == "{x}={}\n{}="


def test_the_first_examples_are_left_out():
    whole = few_shot_prompt("cheese", EXAMPLES, instruction=TASK)
    assert few_shot_prompt("cheese", EXAMPLES, instruction=TASK, limit=len(whole)) == whole
    cut = few_shot_prompt("cheese", EXAMPLES, instruction=TASK, limit=len(whole) - 1)
    assert cut == few_shot_prompt("cheese", EXAMPLES[1:], instruction=TASK)
    least = few_shot_prompt("cheese", instruction=TASK)
    assert few_shot_prompt("cheese", EXAMPLES, instruction=TASK, limit=len(least)) == least


def test_the_limit_is_in_the_unit_of_length():
    def words(text):
        return len(text.split())

    assert few_shot_prompt("c", EXAMPLES, limit=10, length=words) == few_shot_prompt("c", EXAMPLES[2:])
    assert few_shot_prompt("c", EXAMPLES, limit=11, length=words) == few_shot_prompt("c", EXAMPLES[1:])


@pytest.mark.parametrize("template", ["{}", "{} {} {}", "no braces"])
def test_a_template_with_other_braces(template):
    with pytest.raises(ValueError, match=r"template=.* must have one {} for the question and one for the answer"):
        few_shot_prompt("a", template=template)


def test_no_room():
    with pytest.raises(ValueError, match="instruction and query alone have length 9, more than limit=8"):
        few_shot_prompt("cheese", EXAMPLES, limit=8)
    assert few_shot_prompt("cheese", EXAMPLES, limit=9) == "cheese =>"
    with pytest.raises(ValueError, match="alone have length 2, more than limit=0"):
        few_shot_prompt("cheese", limit=0, length=lambda text: len(text.split()))


def test_only_spaces_are_stripped_from_the_end():
    assert few_shot_prompt("a", [("b", "c")], template="{}\n{}", separator="\n\n") == "b\nc\n\na\n"
    assert few_shot_prompt("a", template="{}:  {}") == "a:"
    assert few_shot_prompt("  a") == "  a =>"
