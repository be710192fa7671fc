r"""Text out of bytes that need not be text: as many characters as can be had [@wang2020neural].

Imports: the standard library.

Symbols: B is a sequence of n bytes; f(k) is the largest number of characters in its first k.
"""


def utf8_recover(data: bytes) -> str:
    r"""The characters of `data` after the fewest bytes are left out, by the paper's dynamic programme.

    f(k) is the largest of f(k - t) + g(k - t + 1, k) over t from 1 to 4, where g(i, j) is 1 if the bytes i to j are one
    character and 0 if not. The choice at each k is noted, and followed back from the end. Linear in the length.

    Args:
        data: Any bytes, for instance those of the pieces that a model has produced.

    Returns:
        The characters; bytes that belong to none are gone. Of valid UTF-8: the text.
    """
    most = [0]  # f
    last: list[str] = [""]  # the character that ends at k in the best choice, "" if byte k is left out
    for k in range(1, len(data) + 1):
        best, found = most[k - 1], ""
        for t in range(1, min(4, k) + 1):
            character = _character(data[k - t : k])
            if character and most[k - t] + 1 > best:
                best, found = most[k - t] + 1, character
        most.append(best)
        last.append(found)
    characters = []
    k = len(data)
    while k:
        characters.append(last[k])
        k -= len(last[k].encode()) or 1
    return "".join(reversed(characters))


def _character(data: bytes) -> str:
    """The character that these bytes are, or "" if they are not exactly one."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if len(text) == 1 else ""
