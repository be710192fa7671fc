import pytest

from papercode.site.runner import Outcome, Session
from papercode.site.update import updated
from tiny import block

TEXT = block("""\
    ```pycon exec="on"
    >>> 1 + 1
    2
    >>> 1 + 2
    4
    5
    >>> x = 1
    >>> print("a\\n\\nb")
    >>> y = 3
    3
    ```

    !!! note

        - item

            ```pycon exec="on"
            >>> if True:
            ...     5
            6

            After.
              >>> 7
              8
            ```

    ```python exec="on"
    fails
    ```

    ```pycon exec="on"
    >>> 1
    2
    ```
    """)


def outcome(text, *results):
    session = Session.of("x.md", text)
    return Outcome(session, [{"error": None, "error_line": None, "output": "", **result} for result in results])


def got(*outputs):
    """The results of one fence: None is an example that passed."""
    return {"examples": [{"ok": text is None, "got": "passed\n" if text is None else text} for text in outputs]}


def test_replaces_what_differs_and_keeps_what_passes():
    found = outcome(
        TEXT,
        got(None, "3\n", None, "a\n\n   \nb\n", ""),
        got("5\n6\n", "Traceback (most recent call last):\n    ...\nValueError: x\n"),
        {**got(), "error": "NameError"},
    )
    assert updated(TEXT, found) == block("""\
        ```pycon exec="on"
        >>> 1 + 1
        2
        >>> 1 + 2
        3
        >>> x = 1
        >>> print("a\\n\\nb")
        a
        <BLANKLINE>
        <BLANKLINE>
        b
        >>> y = 3
        ```

        !!! note

            - item

                ```pycon exec="on"
                >>> if True:
                ...     5
                5
                6

                After.
                  >>> 7
                  Traceback (most recent call last):
                      ...
                  ValueError: x
                ```

        ```python exec="on"
        fails
        ```

        ```pycon exec="on"
        >>> 1
        2
        ```
        """)


def test_what_passes_is_left_alone():
    found = outcome(TEXT, got(*[None] * 5), got(None, None), got(), got(None))
    assert updated(TEXT, found) == TEXT


def test_what_was_printed_before_an_exception_is_kept_with_it():
    text = '```pycon exec="on"\n>>> f()\n1\n```\n'
    found = outcome(text, got("said\nTraceback (most recent call last):\n    ...\nValueError\n"))
    lines = ["said", "Traceback (most recent call last):", "    ...", "ValueError"]
    assert updated(text, found).split("\n")[2:6] == lines


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_the_end_of_the_file_stays(end):
    text = '```pycon exec="on"\n>>> 1\n2\n```' + end
    assert updated(text, outcome(text, got("1\n"))) == text.replace("\n2\n", "\n1\n")
