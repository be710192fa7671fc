"""Runs the executed fences of one page in a process of its own. Only this process imports the models."""

import contextlib
import doctest
import functools
import io
import os
import random
import re
import signal
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

from papercode.site.figure import STYLE
from papercode.site.outputs import OPTIONS, OutputChecker

# more than any page should show; one that prints without end is stopped here, not by the disk or the memory
OUTPUT_LIMIT = 1_000_000
_MESSAGE_LIMIT = 10_000
# bytes; full-size models are counted on the meta device, what is trained is small
_MEMORY_LIMIT = 6 * 2**30

_CHECKER = OutputChecker()


class OutputLimitError(BaseException):
    """A fence printed more than a page can show; not an Exception, so that snippets do not catch it in passing."""


class Output(io.StringIO):
    """What a fence prints, up to OUTPUT_LIMIT characters."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, text: str) -> int:
        """Keeps `text`, or stops the fence that prints too much."""
        self.written += len(text)
        if self.written > OUTPUT_LIMIT:
            self.seek(0)
            self.truncate()  # a page can show nothing of it
            raise OutputLimitError(f"printed more than {OUTPUT_LIMIT:,} characters")
        return super().write(text)


@functools.cache
def warm_up() -> None:
    """Imports what every page needs, once in the process that workers are forked from: never the project's modules."""
    os.environ.setdefault("MPLBACKEND", "svg")
    with contextlib.suppress(ImportError):
        import matplotlib.pyplot as plt

        plt.style.use(STYLE)
        figure, axes = plt.subplots()  # finds the fonts, and fills matplotlib's own caches
        axes.plot([0, 1], label="$x$")
        axes.set(title="title", xlabel="x", ylabel="y")
        axes.legend()
        figure.savefig(io.StringIO(), format="svg")
        plt.close(figure)
    with contextlib.suppress(ImportError):
        import torch
        import torch._dynamo  # the first optimizer would import it: 1.7 s in each worker

        torch.set_num_threads(1)


def work(fences: list[dict[str, str]], folder: str, name: str, seconds: float, report: Callable[[tuple], None]) -> None:
    """Runs `fences` from top to bottom in one namespace and reports each start and each result.

    Args:
        fences: the `language` and `code` of each executed fence of the page.
        folder: the folder whose modules the fences import; it comes first on the path.
        name: what tracebacks call the page.
        seconds: CPU seconds after which the operating system ends the process.
        report: takes ("start", fence, example) before an example and ("result", fence, result) after a fence.
    """
    warm_up()
    _limit(seconds)
    _silence()
    sys.path.insert(0, folder)
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main  # so that a class defined on the page can be pickled
    _seed()
    for index, fence in enumerate(fences):
        run = _run_claim if fence["language"] == "pycon" else _run_script
        started = functools.partial(_report_start, report, index)
        # a name for each fence: a line of a function that another fence defined is no line of this one
        report(("result", index, run(fence["code"], f"{name}#{index}", main.__dict__, started)))


def _report_start(report: Callable[[tuple], None], fence: int, example: int) -> None:
    report(("start", fence, example))


def _limit(seconds: float) -> None:
    with contextlib.suppress(ImportError):  # Windows: the parent's wall clock has to do
        import resource

        spent = sum(os.times()[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (round(spent + seconds + 0.5), round(spent + seconds + 5)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(ValueError, OSError):  # not every system counts this
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us


def _silence() -> None:
    """Drops what is written past Python: by C libraries, by processes that a snippet starts, by fatal signals."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _seed() -> None:
    random.seed(0)
    for name, function in (("numpy.random", "seed"), ("torch", "manual_seed")):
        if module := sys.modules.get(name):
            getattr(module, function)(0)


def _run_claim(code: str, name: str, namespace: dict[str, Any], started: Callable[[int], None]) -> dict[str, Any]:
    """Runs a `pycon` fence: each example's output, echoed values included, is compared with what is written."""
    try:
        examples = doctest.DocTestParser().get_examples(code, name)
    except ValueError as inconsistent:  # prompts
        said, line = str(inconsistent), None
        if where := re.match(rf"line (\d+) of the doc\w+ for {re.escape(name)} ", said):
            said, line = f"this line {said[where.end() :]}", int(where[1])
        return {"examples": [], "error": said, "error_line": line, "output": ""}
    results = []
    for index, example in enumerate(examples):
        started(index)
        got, error = _run_example(example, name, namespace)
        flags = OPTIONS
        for flag, on in example.options.items():
            flags = flags | flag if on else flags & ~flag
        if error is None:
            ok = example.exc_msg is None and _CHECKER.check_output(example.want, got, flags)
        else:
            ok = example.exc_msg is not None and _CHECKER.check_output(example.exc_msg, error + "\n", flags)
            got += f"Traceback (most recent call last):\n    ...\n{error}\n"
        results.append({"ok": ok, "got": got})
    return {"examples": results, "error": None, "error_line": None, "output": ""}


def _run_example(example: doctest.Example, name: str, namespace: dict[str, Any]) -> tuple[str, str | None]:
    """What one example printed, and the last line of its exception if it raised one."""
    output, display = Output(), sys.displayhook
    try:
        sys.displayhook = sys.__displayhook__
        with contextlib.redirect_stdout(output):
            exec(compile(example.source, name, "single", dont_inherit=True), namespace)
    except BaseException as exception:  # SystemExit too: it must not end the page in silence
        return _lines(output), _said(exception)
    finally:
        sys.displayhook = display
    return _lines(output), None


def _lines(output: Output) -> str:
    text = output.getvalue()
    return text if not text or text.endswith("\n") else text + "\n"


def _run_script(code: str, name: str, namespace: dict[str, Any], started: Callable[[int], None]) -> dict[str, Any]:
    """Runs a `python` fence and keeps what it prints."""
    started(0)
    output = Output()
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(code, name, "exec", dont_inherit=True), namespace)
    except BaseException as exception:
        message = _said(exception)
        frames = [frame for frame in traceback.extract_tb(exception.__traceback__) if frame.filename == name]
        line = frames[-1].lineno if frames else getattr(exception, "lineno", None)
        return {"examples": [], "error": message, "error_line": line, "output": output.getvalue()}
    return {"examples": [], "error": None, "error_line": None, "output": output.getvalue()}


def _said(exception: BaseException) -> str:
    """The type and message of an exception; of a syntax error without the code, whose place the page shows itself."""
    if isinstance(exception, OutputLimitError):
        return f"OutputLimitError: {exception}"
    lines = traceback.format_exception_only(exception)
    if isinstance(exception, SyntaxError):
        name = type(exception).__qualname__
        lines = lines[next((n for n, line in enumerate(lines) if re.match(rf"([\w.]+\.)?{name}\b", line)), 0) :]
    text = "".join(lines).strip()
    return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + " … and so on"
