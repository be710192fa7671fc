import random

import markdown
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papercode.site.fences import fences, without_fences

TEXT = """\
# Title

```python exec="on" html="on" title="A b's c" alt="d"
x = 1
```

!!! note

    Text.

    ```pycon exec="on"
    >>> if True:
    ...     1

    1
    ```

    After.

- item

    ~~~~ python
    ```
    not a fence
    ```
    ~~~~

`inline` and ``` not a fence ```

```
plain
```
"""


def test_finds_every_fence_with_its_lines():
    found = list(fences(TEXT))
    assert [(f.language, f.line, f.end, f.indent) for f in found] == [
        ("python", 3, 5, ""),
        ("pycon", 11, 16, "    "),
        ("python", 22, 26, "    "),
        ("", 30, 32, ""),
    ]
    lines = TEXT.split("\n")
    for fence in found:  # the first line of the code stands below `line`
        assert lines[fence.line] == fence.indent + fence.code.split("\n")[0]
    assert found[0].options == {"exec": "on", "html": "on", "title": "A b's c", "alt": "d"}
    assert found[1].code == ">>> if True:\n...     1\n\n1\n"
    assert found[2].code == "```\nnot a fence\n```\n"
    assert all(fence.closed for fence in found)


@pytest.mark.parametrize(
    ("info", "executed", "html"),
    [
        ('python exec="on"', True, False),
        ("python exec='on' html='1'", True, True),
        ("python exec html", True, True),
        ('python exec="yes" html="true"', True, True),
        ('python exec="off"', False, False),
        ('python html="no" exec="0"', False, False),
        ("python", False, False),
        ('python title="exec"', False, False),
    ],
)
def test_knows_what_is_to_be_run(info, executed, html):
    [fence] = fences(f"```{info}\n1\n```\n")
    assert (fence.executed, fence.html) == (executed, html)
    assert fence.language == "python"


def test_a_block_without_code_is_one_empty_line():
    [fence] = fences("```python\n```\n")
    assert (fence.code, fence.line, fence.end) == ("\n", 1, 2)


@pytest.mark.parametrize(
    ("text", "closed", "code"),
    [
        ("```\na\n", False, "a\n\n"),
        ("```\na\n````\n", False, "a\n````\n\n"),
        ("````\na\n```\n````\n", True, "a\n```\n"),
        ("```\na\n~~~\n```\n", True, "a\n~~~\n"),
        ("```\na\n```  \n", True, "a\n"),
        # the inner fence is deeper: it belongs to the code, as in a docstring
        ("```\na\n    ```\nb\n```\n", True, "a\n    ```\nb\n"),
        # a line further left than its fence breaks it off
        ("    ```\n    a\nb\n    ```\n", False, "a\n"),
        ("> ```\n> a\n>\n> b\n> ```\n", True, "a\n\nb\n"),
        ("\t```\n\ta\n\t```\n", True, "a\n"),
    ],
)
def test_where_a_fence_ends(text, closed, code):
    first = next(fences(text))
    assert (first.closed, first.code) == (closed, code)


def test_after_a_broken_fence_the_others_are_found():
    text = "    ```python\n    a\nb\n\n```pycon\n>>> 1\n```\n"
    assert [(f.language, f.closed, f.line, f.end) for f in fences(text)] == [
        ("python", False, 1, 2),
        ("pycon", True, 5, 7),
    ]


def test_a_form_feed_ends_no_line():
    text = "from a PDF \x0c and \u2028 more\n\n```\nx\n```\n"
    assert [fence.line for fence in fences(text)] == [3]
    assert [fence.line for fence in fences(text.replace("\x0c", "\n"))] == [4]


def test_blanks_fences_and_keeps_the_line_numbers():
    text = without_fences(TEXT)
    lines = text.split("\n")
    assert len(lines) == len(TEXT.split("\n"))
    assert "x = 1" not in text
    assert ">>>" not in text
    kept = [(n, line) for n, line in enumerate(lines) if line]
    assert kept == [(n, line) for n, line in enumerate(TEXT.split("\n")) if line and (n, line) in kept]
    assert lines[17] == "    After."
    assert lines[27] == "`inline` and ``` not a fence ```"


def _superfences(text):
    """The closed fences that the site's Markdown extension sees."""
    found = []

    def keep(source, language, class_name, options, md, **rest):
        found.append((language or "", source.rstrip("\n")))
        return "<p></p>"

    every = {"name": "*", "class": "", "format": keep, "validator": lambda *arguments: True}
    names = ["admonition", "pymdownx.details", "pymdownx.superfences"]
    markdown.markdown(text, extensions=names, extension_configs={names[2]: {"custom_fences": [every]}})
    return sorted(found)


LINES = ["```python", "```", "````", '```pycon exec="on"', "    ```", "    ```python", "    x = 1", "x = 1", "", "text"]
LINES += ["!!! note", '??? q "t"', "  ```", "~~~", "~~~python", "    >>> 1", "\t```python", "\t```", "\tx", "# h"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(LINES), min_size=2, max_size=9))
def test_sees_the_fences_that_superfences_sees(lines):
    text = "\n".join(lines) + "\n"
    assert sorted((f.language, f.code.rstrip("\n")) for f in fences(text) if f.closed) == _superfences(text)


def test_the_comparison_with_superfences_is_not_empty():
    rng = random.Random(0)
    texts = ["\n".join(rng.choices(LINES, k=9)) + "\n" for _ in range(30)]
    assert sum(bool(_superfences(text)) for text in texts) > 5
    assert _superfences(TEXT) == sorted((f.language, f.code.rstrip("\n")) for f in fences(TEXT))
