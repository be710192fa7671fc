"""When an actual output counts as the expected one: doctest's rules, plus a tolerance for written decimals."""

import doctest
import re

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

_NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.(?P<fraction>\d*))?(?:[eE](?P<exponent>[+-]?\d+))?(?!\w)")


class OutputChecker(doctest.OutputChecker):
    """Doctest's comparison with ELLIPSIS and NORMALIZE_WHITESPACE, and a tolerance of one unit of the last decimal.

    An expected `0.75` accepts 0.7512, 0.75 and 0.744; an expected `3` accepts nothing but 3, for counts are exact.
    """

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        """Whether `got` counts as `want`."""
        if super().check_output(want, got, optionflags):
            return True
        return super().check_output(want, _rounded(want, got), optionflags)


def _rounded(want: str, got: str) -> str:
    """`got`, with each decimal that is close enough to its counterpart in `want` written as `want` writes it."""
    wanted, actual = list(_NUMBER.finditer(want)), list(_NUMBER.finditer(got))
    if len(wanted) != len(actual):
        return got
    pieces, end = [], 0
    for w, g in zip(wanted, actual, strict=True):
        pieces.append(got[end : g.start()])
        close = w["fraction"] is not None and abs(float(w[0]) - float(g[0])) <= 1.000001 * _unit(w)
        pieces.append(w[0] if close else g[0])
        end = g.end()
    return "".join([*pieces, got[end:]])


def _unit(number: re.Match[str]) -> float:
    """The worth of the last decimal written; none for torch's `1.`, which stands for exactly one."""
    if not number["fraction"]:
        return 0.0
    return 10.0 ** (int(number["exponent"] or 0) - len(number["fraction"]))
