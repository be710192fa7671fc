"""Runs the executed fences of pages: each page in a fresh process, several at a time, results kept on disk."""

import contextlib
import functools
import importlib.metadata
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from doctest import DocTestParser, Example
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from papercode.site.fences import Fence, fences
from papercode.site.figure import STYLE
from papercode.site.problem import Problem
from papercode.site.sources import Sources
from papercode.site.store import Store, digest
from papercode.site.worker import work

TIME_LIMIT = 10.0
LANGUAGES = ("pycon", "python", "py")

_LIBRARIES = ("torch", "numpy", "matplotlib")
# what decides whether an output counts as the expected one, and how figures look
_ENGINE = digest([Path(__file__).with_name(n).read_text("utf-8") for n in ("worker.py", "outputs.py", STYLE.name)])
_PATIENCE = 4  # a page may wait this many times its CPU limit for a busy machine


@dataclass(frozen=True)
class Session:
    """The executed fences of a page, which share one namespace.

    Attributes:
        path: the page's file, as problems name it.
        fences: the fences with `exec="on"`, from top to bottom.
        time_limit: CPU seconds that all of them may take together.
    """

    path: Path
    fences: tuple[Fence, ...]
    time_limit: float = TIME_LIMIT

    @classmethod
    def of(cls, path: Path, text: str, time_limit: float = TIME_LIMIT) -> "Session":
        """The session of a page's Markdown `text`."""
        return cls(path, tuple(f for f in fences(text) if f.executed and f.language in LANGUAGES), time_limit)

    @property
    def code(self) -> list[str]:
        """All that is run, piece by piece, so that a piece that is not Python hides no import of the others."""
        return [example.source for fence in self.fences for example in examples(fence)]


def examples(fence: Fence) -> list[Example]:
    """The examples of a `pycon` fence; a `python` fence is one example that expects nothing."""
    if fence.language != "pycon":
        return [Example(fence.code, "", lineno=0)]
    with contextlib.suppress(ValueError):  # inconsistent prompts: the worker reports them
        return DocTestParser().get_examples(fence.code)
    return []


@dataclass
class Outcome:
    """What running a page gave: for each fence its result, and what there is to mend."""

    session: Session
    results: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    cached: bool = False

    @property
    def complete(self) -> bool:
        """Whether every fence ran to its end; only then the outcome is worth keeping."""
        return len(self.results) == len(self.session.fences) and not any(r.get("stopped") for r in self.results)

    def failures(self, index: int) -> list[Problem]:
        """What is wrong with fence number `index`."""
        fence, path = self.session.fences[index], self.session.path
        if index >= len(self.results):
            return [Problem(path, fence.line, "not run, because the page stopped above")]
        result, found = self.results[index], []
        if result["error"]:
            line = fence.line + (result["error_line"] or 1)
            found.append(Problem(path, line, f"snippet failed: {result['error']}"))
        for example, got in zip(examples(fence), result["examples"], strict=False):
            if not got["ok"]:
                message = f"snippet mismatch\nExpected:\n{_indented(example.want)}\nGot:\n{_indented(got['got'])}"
                found.append(Problem(path, fence.line + 1 + example.lineno, message))
        return found

    @property
    def problems(self) -> list[Problem]:
        """Everything that is wrong with the page's snippets, from top to bottom."""
        return [problem for index in range(len(self.session.fences)) for problem in self.failures(index)]


def _indented(text: str) -> str:
    text = text if len(text) < 2000 else text[:2000] + "\n… and so on"
    return "\n".join("    " + line for line in text.splitlines()) or "    nothing"


Progress = Callable[[int, int, Outcome], None]


class Runner:
    """Runs sessions, each in a process of its own, and keeps complete outcomes in `store`.

    Args:
        sources: the modules that snippets may import.
        store: None runs everything afresh.
        jobs: processes at a time.
    """

    def __init__(self, sources: Sources, store: Store | None, jobs: int | None = None):
        self.sources = sources
        self.store = store
        self.jobs = jobs or os.cpu_count() or 1

    def key(self, session: Session) -> str:
        """What the outcome depends on: the code, the source it reaches, and the versions below it."""
        return digest(
            "session 1",
            [(f.language, f.html, f.code) for f in session.fences],
            self.sources.fingerprint(*session.code),
            sys.version,
            [_version(library) for library in _LIBRARIES],
            _ENGINE,
        )

    def run(self, sessions: Iterable[Session], progress: Progress | None = None) -> dict[Path, Outcome]:
        """The outcome of each session, by path."""
        return {outcome.session.path: outcome for outcome in self.stream(sessions, progress)}

    def stream(self, sessions: Iterable[Session], progress: Progress | None = None) -> Iterator[Outcome]:
        """The outcome of each session as soon as it is there: what is known first, then what has to run.

        Calls `progress(done, of, outcome)` after each that had to run.
        """
        missing: dict[str, list[Session]] = {}
        for session in sessions:
            key = self.key(session)
            kept = self.store.get(key) if self.store and session.fences else None
            if kept is not None or not session.fences:
                yield Outcome(session, kept or [], cached=True)
            else:
                missing.setdefault(key, []).append(session)
        for done, (key, outcome) in enumerate(self._execute(missing), 1):
            if self.store and outcome.complete:
                self.store.put(key, outcome.results)
            if progress:
                progress(done, len(missing), outcome)
            for session in missing[key]:
                yield Outcome(session, outcome.results, outcome.seconds)

    def _execute(self, missing: dict[str, list[Session]]) -> Iterable[tuple[str, Outcome]]:
        queue = [(key, sessions[0]) for key, sessions in missing.items()]
        queue.reverse()
        running: dict[Connection, tuple[str, _Worker]] = {}
        try:
            while queue or running:
                while queue and len(running) < self.jobs:
                    key, session = queue.pop()
                    worker = _Worker(session, self.sources.folder)
                    running[worker.pipe] = key, worker
                for ready in wait(list(running), timeout=0.5):
                    running[ready][1].read()  # type: ignore[index]
                for pipe, (key, worker) in list(running.items()):
                    if worker.finished():
                        del running[pipe]
                        yield key, worker.outcome
        finally:
            for _, worker in running.values():
                worker.process.kill()


class _Worker:
    """One page being run."""

    def __init__(self, session: Session, folder: Path):
        self.outcome = Outcome(session)
        self.at: tuple[int, int] | None = None
        self.started = time.monotonic()
        self.closed = False
        self.pipe, theirs = _CONTEXT.Pipe(duplex=False)
        code = [{"language": f.language, "code": f.code} for f in session.fences]
        arguments = (code, str(folder.resolve()), str(session.path), session.time_limit, theirs)
        self.process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        with _STARTING, _plain_main():
            self.process.start()
        theirs.close()

    def read(self) -> None:
        """Takes what the process has to say."""
        try:
            while self.pipe.poll():
                kind, *what = self.pipe.recv()
                if kind == "start":
                    self.at = what[0], what[1]
                else:
                    self.outcome.results.append(what[1])
        except (EOFError, OSError):
            self.closed = True

    def finished(self) -> bool:
        """Whether the page is done, or was stopped; then the outcome says why."""
        patience = _PATIENCE * self.outcome.session.time_limit
        elapsed = time.monotonic() - self.started
        done = len(self.outcome.results) == len(self.outcome.session.fences)
        if not (done or self.closed or elapsed >= patience):
            return False
        if done or not self.closed:  # threads and processes that the page started may still run
            self.process.kill()
        self.process.join(max(0.0, patience - elapsed))
        if self.process.exitcode is None:  # it closed our pipe and lives on
            self.process.kill()
            self.process.join()
        self.outcome.seconds = elapsed
        if not done:
            self._explain(elapsed)
        self.pipe.close()
        return True

    def _explain(self, elapsed: float) -> None:
        """Adds the result of the fence at which the process ended."""
        limit, code = self.outcome.session.time_limit, self.process.exitcode or 0
        settable = "set `time_limit` in the front matter if it must take longer"
        if not self.closed:
            why = f"stopped after {elapsed:.0f} s on the clock, with a limit of {limit:g} s of CPU time; {settable}"
        elif code == -24:  # SIGXCPU
            why = f"stopped at the limit of {limit:g} s of CPU time for the page; {settable}"
        elif code < 0:
            why = f"the process was ended by signal {-code} ({_signal_name(-code)})"
        else:
            why = f"the process ended itself with exit code {code}"
        index = len(self.outcome.results)
        fence = self.outcome.session.fences[index]
        example = self.at[1] if self.at and self.at[0] == index else 0
        listed = examples(fence)
        line = listed[example].lineno + 1 if example < len(listed) else 1
        result = {"examples": [], "error": why, "error_line": line, "output": "", "stopped": True}
        self.outcome.results.append(result)


def _signal_name(number: int) -> str:
    import signal

    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return "unknown"


def _serve(code: list[dict[str, str]], folder: str, name: str, seconds: float, pipe: Connection) -> None:
    work(code, folder, name, seconds, pipe.send)
    pipe.close()


@functools.cache
def _version(library: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(library)
    return None


def _context() -> Any:
    """Forking from a process that did nothing but import torch and matplotlib; spawning where there is no fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["papercode.site.warm"])
    return context


_CONTEXT = _context()
_STARTING = threading.Lock()


@contextlib.contextmanager
def _plain_main() -> Iterator[None]:
    """Keeps multiprocessing from running the program that called us (mkdocs, pytest, a script) again in each worker."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    main.__file__, main.__spec__ = None, None
    try:
        yield
    finally:
        main.__file__, main.__spec__ = file, spec


def progress_bar() -> Progress:
    """A progress callback that draws a bar on the terminal, and now and then a line where there is none."""
    from tqdm import tqdm

    bars: list[Any] = []
    pause = 0.1 if sys.stderr.isatty() else 10.0  # seconds; a log wants few lines

    def advance(done: int, of: int, outcome: Outcome) -> None:
        if not bars:
            bars.append(tqdm(total=of, desc="running snippets", unit="page", leave=False, mininterval=pause))
        bars[0].set_postfix_str(outcome.session.path.name, refresh=False)
        bars[0].update()
        if done == of:
            bars.pop().close()

    return advance
