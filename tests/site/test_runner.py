"""Running snippets: what counts as right, and what bad ones get."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from papercode.site.project import Project
from papercode.site.runner import TIME_LIMIT, Outcome, Runner, Session, examples
from papercode.site.sources import Sources
from papercode.site.store import Store
from tiny import MODULES, block, edit, line_of

TRACEBACK = "Traceback (most recent call last):\n        ...\n    "

# Each page is run once, all of them side by side; the tests look at what came of them.
PAGES = {
    "good": """\
        ```pycon exec="on"
        >>> import torch
        >>> torch.ones(2, 3).shape
        torch.Size([2, 3])
        >>> for i in range(2):
        ...     i
        0
        1
        >>> print("a\\n\\nb")
        a
        <BLANKLINE>
        b
        >>> x = 3
        >>> None
        >>> _ = 4
        ```

        ```python exec="on" html="on"
        print(f"<b>{x + 1}</b>")
        ```

        ```python
        not run
        ```
        """,
    "wrong": """\
        # Title

        ```pycon exec="on"
        >>> 1 + 1
        2
        >>> 1 + 1
        3
        >>> 5 +
        6
        ```

        !!! note

            Text.

            ```pycon exec="on"
            >>> if True:
            ...     print("a")
            b
            >>> 2
            ```

            ??? question "Deeper?"

                ```pycon exec="on"

                >>> 1 / 0
                1
                ```
        """,
    "tolerance": """\
        ```pycon exec="on"
        >>> 0.7512
        0.75
        >>> 0.7712
        0.75
        >>> list(range(20))
        [0, 1, ..., 19]
        >>> list(range(20))  # doctest: -ELLIPSIS
        [0, 1, ..., 19]
        >>> "a   b"
        'a b'
        ```
        """,
    "exceptions": """\
        ```pycon exec="on"
        >>> int("x")
        Traceback (most recent call last):
            ...
        ValueError: invalid literal for int() with base 10: 'x'
        >>> int("x")
        Traceback (most recent call last):
        ValueError: ...
        >>> int("x")
        Traceback (most recent call last):
        TypeError: ...
        >>> int("4")
        Traceback (most recent call last):
        ValueError: ...
        >>> eval("1 +")
        Traceback (most recent call last):
        SyntaxError: invalid syntax
        >>> from zoo.words import nothing
        Traceback (most recent call last):
        ImportError: cannot import name 'nothing' ...
        >>> print("said before"); int("x")
        4
        >>> print("Traceback (most recent call last):\\nValueError: only printed")
        Traceback (most recent call last):
        ValueError: only printed
        >>> print("no line end", end="")
        with one
        ```
        """,
    "script": """\
        ```python exec="on"
        def fails(x):
            # a line more

            raise ValueError(f"no {x}")
        print("fine")
        ```

        ```python exec="on"
        print("shown")


        fails(1)
        ```

        ```python exec="on"
        def also():
            fails(2)

        also()
        ```

        ```pycon exec="on"
        >>> fails(3)
        Traceback (most recent call last):
        ValueError: no 3
        ```
        """,
    "syntax": """\
        ```python exec="on"
        x = 1
        y = (
        ```

        ```pycon exec="on"
        >>> x
        Traceback (most recent call last):
        NameError: name 'x' is not defined
        >>> def f(:
        ...     pass
        1
        ```
        """,
    "prompts": """\
        ```pycon exec="on"
        >>> 1
        1
        >>>2
        2
        ```

        ```pycon exec="on"
          >>> if True:
          ...     1
        1
        ```
        """,
    "exits": """\
        ```python exec="on"
        import sys
        sys.exit(3)
        ```

        ```pycon exec="on"
        >>> raise SystemExit
        1
        >>> raise KeyboardInterrupt("stop")
        2
        >>> input()
        3
        >>> 4
        4
        ```
        """,
    "recursion": """\
        ```pycon exec="on"
        >>> def f(n):
        ...     return f(n + 1)
        >>> f(0)
        0
        >>> 1
        1
        ```
        """,
    "long-message": """\
        ```python exec="on"
        raise ValueError("x" * 10**7)
        ```
        """,
    "floods": """\
        ```python exec="on"
        while True:
            print("x" * 1000)
        ```

        ```python exec="on"
        while True:
            try:
                print("x" * 1000)
            except Exception:
                pass
        ```

        ```pycon exec="on"
        >>> "x" * 10**7
        'x'
        >>> print("x" * 10**10)
        x
        >>> for i in range(10**9):
        ...     print("x" * 10**6)
        x
        >>> print("still here")
        still here
        ```
        """,
    "past": """\
        ```python exec="on"
        import os, subprocess, sys
        os.write(1, b"not shown")
        os.write(2, b"not shown")
        subprocess.run(["echo", "not shown"])
        subprocess.run(["sh", "-c", "head -c 10000000 /dev/zero"])
        sys.__stdout__.write("not shown")
        print("not shown", file=sys.stderr)
        print("shown")
        ```
        """,
    "leftovers": """\
        ```python exec="on"
        import os, subprocess, time
        child = subprocess.Popen(["sleep", "25"])
        if not (fork := os.fork()):
            time.sleep(25)
            os._exit(0)
        print(child.pid, fork)
        ```
        """,
    "thread": """\
        ```python exec="on"
        import threading, time
        threading.Thread(target=time.sleep, args=(25,)).start()
        ```
        """,
    "memory": """\
        ```python exec="on"
        x = 1
        y = bytearray(7 * 2**30)
        ```
        """,
    "leaves": """\
        ```pycon exec="on"
        >>> 1
        1
        >>> import os; os._exit(3)
        >>> 2
        2
        ```

        ```pycon exec="on"
        >>> 3
        3
        ```
        """,
    "crashes": """\
        ```pycon exec="on"
        >>> 1
        1
        ```

        ```pycon exec="on"
        >>> import ctypes
        >>> if True:
        ...     ctypes.string_at(0)
        ```
        """,
    "pickle": """\
        ```pycon exec="on"
        >>> import pickle
        >>> class Box:
        ...     content = 1
        >>> __name__
        '__main__'
        ```

        ```pycon exec="on"
        >>> pickle.loads(pickle.dumps(Box())).content
        1
        >>> import dataclasses
        >>> @dataclasses.dataclass
        ... class Point:
        ...     x: int
        >>> pickle.loads(pickle.dumps(Point(3)))
        Point(x=3)
        ```
        """,
    "first": """\
        ```python exec="on"
        import builtins, zoo.attention.scaled
        secret = builtins.secret = 1
        zoo.attention.scaled.FACTOR = 3
        ```

        ```pycon exec="on"
        >>> secret
        1
        >>> zoo.attention.scaled.scaled(2)
        6
        ```
        """,
    "second": """\
        ```pycon exec="on"
        >>> secret
        Traceback (most recent call last):
        NameError: name 'secret' is not defined
        >>> import zoo.attention.scaled
        >>> zoo.attention.scaled.scaled(2)
        4
        ```
        """,
    "random": """\
        ```python exec="on"
        import random, numpy, torch
        print(torch.randn(3).tolist(), numpy.random.rand(), random.random())
        ```

        ```python exec="on"
        print(torch.randn(3).tolist(), numpy.random.rand(), random.random())
        ```

        ```python exec="on"
        torch.manual_seed(0)
        print(torch.randn(3).tolist(), torch.get_num_threads())
        ```
        """,
    "figure": """\
        ```python exec="on" html="on"
        import matplotlib.pyplot as plt
        from papercode.site.figure import svg
        plot, axes = plt.subplots(figsize=(2, 1))
        axes.plot([1, 2])
        print(svg(plot))
        ```
        """,
    "limits": """\
        ```python exec="on"
        import os, resource, sys
        print(resource.getrlimit(resource.RLIMIT_CPU)[0] - round(sum(os.times()[:2])))
        print(resource.getrlimit(resource.RLIMIT_CORE)[0], "zoo" in sys.modules)
        ```
        """,
    "nothing": "Only prose, and `>>> inline`.",
}
# pages that never end by themselves, with their limits
ENDLESS = {
    "endless": (
        1,
        """\
        ```pycon exec="on"
        >>> 1
        1
        ```

        ```pycon exec="on"
        >>> 2
        3
        >>> while True:
        ...     pass
        ```

        !!! note

            ```python exec="on"
            print("after")
            ```
        """,
    ),
    "sleeps": (
        0.5,
        """\
        ```python exec="on"
        x = 1
        ```

        ```python exec="on"
        import time
        time.sleep(1000)
        ```
        """,
    ),
    "mute": (
        0.5,
        """\
        ```python exec="on"
        import os, time
        os.closerange(3, 200)
        time.sleep(1000)
        ```
        """,
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("src")
    for name, text in MODULES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def session(name, text, limit=TIME_LIMIT):
    return Session.of(Path(f"papers/{name}.md"), block(text), limit)


@pytest.fixture(scope="module")
def everything(source, tmp_path_factory):
    """All the pages, their outcomes by name, and the runner."""
    sessions = [session(name, text) for name, text in PAGES.items()]
    sessions += [session(name, text, limit) for name, (limit, text) in ENDLESS.items()]
    sessions.append(session("random again", "\n" + block(PAGES["random"])))  # other lines, the same code
    sessions.append(session("random later", PAGES["random"] + '        ```python exec="on"\n        1\n        ```\n'))
    store = Store(tmp_path_factory.mktemp("store"))
    runner = Runner(Sources(source), store, jobs=4)
    outcomes = runner.run(sessions)
    return {s.path.stem: s for s in sessions}, {path.stem: o for path, o in outcomes.items()}, runner


@pytest.fixture(scope="module")
def outcomes(everything) -> dict[str, Outcome]:
    return everything[1]


def problems(outcome, lines=1):
    """(line, the first `lines` lines of the message) of each problem."""
    assert all(problem.path == outcome.session.path for problem in outcome.problems)
    return [(p.line, "\n".join(p.message.split("\n")[:lines])) for p in outcome.problems]


def outputs(outcome):
    return [result["output"] for result in outcome.results]


def mismatch(want, got):
    return f"snippet mismatch\nExpected:\n    {want}\nGot:\n    {got}"


# what is right


def test_good_snippets_pass_beside_all_the_bad_ones(outcomes):
    assert outcomes["good"].problems == []
    assert outcomes["good"].complete
    assert outputs(outcomes["good"])[1] == "<b>4</b>\n"
    assert [len(result["examples"]) for result in outcomes["good"].results] == [7, 0]
    assert outcomes["nothing"].complete
    assert outcomes["nothing"].results == outcomes["nothing"].problems == []


def test_expected_outputs_have_a_tolerance_and_options(outcomes):
    assert problems(outcomes["tolerance"], 9) == [
        (4, mismatch("0.75", "0.7712")),
        (8, mismatch("[0, 1, ..., 19]", str(list(range(20))))),
    ]


def test_expected_exceptions(outcomes):
    got = problems(outcomes["exceptions"], 99)
    printed = "Traceback (most recent call last):\n    ValueError: only printed"
    raised = f"{TRACEBACK}ValueError: invalid literal for int() with base 10: 'x'"
    assert got == [
        (9, mismatch("Traceback (most recent call last):\n    TypeError: ...", raised)),
        (12, mismatch("Traceback (most recent call last):\n    ValueError: ...", "4")),
        (21, mismatch("4", f"said before\n    {raised}")),
        (23, mismatch(printed, printed)),
        (26, mismatch("with one", "no line end")),
    ]
    assert outcomes["exceptions"].results[0]["examples"][-1]["got"] == "no line end\n"


def test_a_class_of_the_page_can_be_pickled(outcomes):
    assert outcomes["pickle"].problems == []


def test_the_fences_of_a_page_share_a_namespace_and_pages_share_nothing(outcomes):
    assert outcomes["first"].problems == []
    assert outcomes["second"].problems == []


def test_random_numbers_are_the_same_on_every_run(outcomes):
    first, second, seeded = outputs(outcomes["random"])
    assert outputs(outcomes["random later"])[:3] == [first, second, seeded]
    assert outcomes["random later"].seconds  # it was run by itself
    assert first != second
    assert first.endswith("] 0.5488135039273248 0.8444218515250481\n")  # numpy and random, seeded with 0 as well
    assert seeded == first.split("]")[0] + "] 1\n"  # seeded with 0 from the start, and one thread


def test_pages_with_the_same_code_are_run_once(everything):
    sessions, outcomes, runner = everything
    assert runner.key(sessions["random"]) == runner.key(sessions["random again"])
    assert outcomes["random"].results is outcomes["random again"].results
    assert outcomes["random again"].session.path.name == "random again.md"


def test_figures_are_the_same_on_every_run(outcomes, source):
    assert outcomes["figure"].problems == []
    [text] = outputs(outcomes["figure"])
    assert text.startswith("<svg")
    assert text.endswith("</svg>\n")
    page = session("figure", PAGES["figure"])
    again = Runner(Sources(source), None).run([page])[page.path]
    assert outputs(again) == [text]
    changed = session("figure", PAGES["figure"].replace("[1, 2]", "[1, 3]"))
    assert outputs(Runner(Sources(source), None).run([changed])[page.path]) != [text]


def test_a_worker_starts_with_its_limits_and_without_the_projects_modules(outcomes):
    cpu, rest = outputs(outcomes["limits"])[0].splitlines()
    assert TIME_LIMIT == 10
    assert 10 <= int(cpu) <= 11
    assert rest == "0 False"


# what is wrong, and where


def test_wrong_outputs_name_their_lines(outcomes):
    zero, syntax = f"{TRACEBACK}ZeroDivisionError: division by zero", f"{TRACEBACK}SyntaxError: invalid syntax"
    assert problems(outcomes["wrong"], 99) == [
        (6, mismatch("3", "2")),
        (8, mismatch("6", syntax)),
        (17, mismatch("b", "a")),
        (20, mismatch("nothing", "2")),
        (27, mismatch("1", zero)),
    ]
    assert str(outcomes["wrong"].problems[0]).startswith("papers/wrong.md:6: snippet mismatch\n")
    assert outcomes["wrong"].complete  # wrong, but all of it ran: worth keeping


def test_a_failing_script_names_its_own_line(outcomes):
    """Not the line of a function that another fence defined."""
    assert problems(outcomes["script"], 9) == [
        (13, "snippet failed: ValueError: no 1"),
        (18, "snippet failed: ValueError: no 2"),
    ]
    assert outputs(outcomes["script"])[:2] == ["fine\n", "shown\n"]


def test_syntax_errors(outcomes):
    assert problems(outcomes["syntax"], 99) == [
        (3, "snippet failed: SyntaxError: '(' was never closed"),
        (10, mismatch("1", f"{TRACEBACK}SyntaxError: invalid syntax")),
    ]


def test_inconsistent_prompts(outcomes):
    assert problems(outcomes["prompts"]) == [
        (4, "snippet failed: this line lacks blank after >>>: '>>>2'"),
        (11, "snippet failed: this line has inconsistent leading whitespace: '1'"),
    ]


def test_leaving_by_exception_ends_nothing(outcomes):
    assert problems(outcomes["exits"], 99) == [
        (3, "snippet failed: SystemExit: 3"),
        (7, mismatch("1", TRACEBACK + "SystemExit")),
        (9, mismatch("2", TRACEBACK + "KeyboardInterrupt: stop")),
        (11, mismatch("3", TRACEBACK + "EOFError: EOF when reading a line")),
    ]


def test_recursion_without_end(outcomes):
    [(line, message)] = problems(outcomes["recursion"], 99)
    assert line == 4
    assert "RecursionError: maximum recursion depth exceeded" in message


def test_a_long_message_is_cut(outcomes):
    [(line, message)] = problems(outcomes["long-message"], 99)
    assert line == 2
    assert message.startswith("snippet failed: ValueError: xxx")
    assert message.endswith(" … and so on")
    assert len(message) < 11_000


def test_output_without_end_is_stopped(outcomes):
    found = problems(outcomes["floods"], 99)
    much = "OutputLimitError: printed more than 1,000,000 characters"
    assert [line for line, _ in found] == [3, 9, 15, 17, 19]
    assert [message for _, message in found[:2]] == [f"snippet failed: {much}"] * 2
    assert much in found[2][1]
    assert "MemoryError" in found[3][1]
    assert much in found[4][1]
    assert outcomes["floods"].complete
    assert len(json.dumps(outcomes["floods"].results)) < 10_000


def test_what_is_written_past_python_is_not_shown(outcomes):
    assert outcomes["past"].problems == []
    assert outputs(outcomes["past"]) == ["shown\n"]


def test_what_a_page_leaves_running_keeps_nobody(outcomes):
    """A process and a fork that holds our pipe, or a thread, each for 25 s."""
    for pid in map(int, outputs(outcomes["leftovers"])[0].split()):
        os.kill(pid, signal.SIGKILL)  # they were running
    for name in ("leftovers", "thread"):
        assert outcomes[name].problems == []
        assert outcomes[name].complete
        assert outcomes[name].seconds < 20


def test_memory_without_end_is_stopped(outcomes):
    assert problems(outcomes["memory"]) == [(3, "snippet failed: MemoryError")]


def test_a_page_that_ends_its_process(outcomes):
    assert problems(outcomes["leaves"]) == [
        (4, "snippet failed: the process ended itself with exit code 3"),
        (9, "not run, because the page stopped above"),
    ]
    assert not outcomes["leaves"].complete


def test_a_page_that_crashes_its_process(outcomes):
    assert problems(outcomes["crashes"]) == [(8, "snippet failed: the process was ended by signal 11 (SIGSEGV)")]
    assert not outcomes["crashes"].complete


def test_an_endless_loop(outcomes):
    (line, message), *rest = problems(outcomes["endless"])
    # of the fence that was stopped, the place where it was stopped is what there is to say
    assert line == 9
    assert "limit of 1 s of CPU time" in message
    assert "set `time_limit` in the front matter" in message
    assert rest == [(15, "not run, because the page stopped above")]
    assert not outcomes["endless"].complete


def test_sleeping_forever(outcomes):
    [(line, message)] = problems(outcomes["sleeps"])
    assert line == 6
    assert message.startswith("snippet failed: stopped after ")
    assert "s on the clock, with a limit of 0.5 s of CPU time; set `time_limit`" in message
    assert outcomes["sleeps"].seconds >= 2


def test_a_page_that_shuts_its_pipe_and_sleeps(outcomes):
    [(line, message)] = problems(outcomes["mute"])
    assert line == 2
    assert "the process was ended by signal 9 (SIGKILL)" in message


# the cache


def test_complete_outcomes_are_kept_and_others_are_not(everything):
    sessions, outcomes, runner = everything
    kept = {name for name in sessions if runner.store.get(runner.key(sessions[name])) is not None}
    incomplete = {"leaves", "crashes", "endless", "sleeps", "mute"}
    assert kept == set(sessions) - incomplete - {"nothing"}
    asked = [sessions[name] for name in kept]
    again = Runner(runner.sources, runner.store).run(asked, progress=lambda *_: pytest.fail("something was run"))
    for name in kept:
        outcome = again[sessions[name].path]
        assert outcome.cached
        assert outcome.results == outcomes[name].results
        assert outcome.problems == outcomes[name].problems
    assert not outcomes["good"].cached


@pytest.fixture
def tiny(root):
    """Runs pages of the tiny project as each command does, with a fresh `Project`; gives outcomes and what was run."""

    def run(*names):
        project = Project(root)
        pages = [root / "papers" / f"{name}.md" for name in names or ("attention/scaled", "adaptation/adapter")]
        ran = []
        found = project.runner().run(
            [project.session(page) for page in pages], lambda done, of, outcome: ran.append(outcome.session.path.stem)
        )
        return {path.stem: outcome for path, outcome in found.items()}, sorted(ran)

    return run


def test_each_page_runs_when_what_it_reaches_changes(root, tiny):
    outcomes, ran = tiny()
    assert ran == ["adapter", "scaled"]
    assert not any(outcome.problems for outcome in outcomes.values())
    assert tiny()[1] == []

    # a module that only one page reaches
    adapter = root / "src/zoo/adaptation/adapter.py"
    edit(adapter, "+ 1", "+ 2")
    outcomes, ran = tiny()
    assert ran == ["adapter"]
    assert problems(outcomes["adapter"], 9)[0][1] == mismatch("5", "6")
    edit(adapter, "+ 2", "+ 1")
    assert tiny()[1] == []  # as it was

    # one that both reach, one of them through another module; the same parent process sees the edited module
    edit(root / "src/zoo/attention/scaled.py", "FACTOR = 2", "FACTOR = 3")
    outcomes, ran = tiny()
    assert ran == ["adapter", "scaled"]
    assert problems(outcomes["scaled"], 9)[0][1] == mismatch("4", "6")
    assert problems(outcomes["adapter"], 9)[0][1] == mismatch("5", "7")

    # one that neither reaches, and prose
    edit(root / "src/zoo/words/plain.py", "plain", "fancy")
    edit(root / "papers/attention/scaled.md", "doubles:", "doubles,\nas they say:")
    outcomes, ran = tiny()
    assert ran == []
    path = root / "papers/attention/scaled.md"
    assert [p.line for p in outcomes["scaled"].problems] == [line_of(path, ">>> scaled(2)")]  # where it is now

    # the code of a page
    edit(path, ">>> scaled(2)\n4", ">>> scaled(2)\n6")
    outcomes, ran = tiny()
    assert ran == ["scaled"]
    assert outcomes["scaled"].problems == []


def test_what_an_outcome_depends_on(root, monkeypatch):
    def key(text=None, **options):
        project = Project(root)
        path = root / "papers/attention/scaled.md"
        page = project.session(path) if text is None else Session.of(path, text, **options)
        return project.runner().key(page)

    base = key()
    assert key() == base
    text = (root / "papers/attention/scaled.md").read_text()
    assert key(text) == base
    assert key(text, time_limit=3) == base
    assert key(text.replace("doubles:", "halves:")) == base
    assert key(text.replace("scaled(2)\n4", "scaled(2)\n5")) != base
    assert key(text.replace('html="on"', 'html="off"')) != base
    assert key(text.replace("Figure 1. A", "Figure 1. The")) == base
    monkeypatch.setattr("papercode.site.runner._version", lambda library: "0" if library == "torch" else "1")
    assert key() != base
    monkeypatch.undo()
    monkeypatch.setattr("papercode.site.runner._ENGINE", "another comparison")
    assert key() != base
    monkeypatch.undo()
    monkeypatch.setattr(sys, "version", "4")
    assert key() != base


def test_a_syntax_error_does_not_hide_what_a_page_reaches(root):
    """One piece that is not Python must not freeze the outcome of the others."""
    path = root / "papers/attention/scaled.md"
    text = path.read_text() + '\n```pycon exec="on"\n>>> x = (\n1\n```\n'

    def key():
        return Project(root).runner().key(Session.of(path, text))

    before = key()
    edit(root / "src/zoo/attention/scaled.py", "FACTOR = 2", "FACTOR = 3")
    assert key() != before


def test_a_corrupt_entry_is_run_again(root, tiny):
    before, ran = tiny("attention/scaled")
    assert ran == ["scaled"]
    [entry] = (path for path in (Project(root).cache / "snippets").rglob("*") if path.is_file())
    good = entry.read_bytes()
    for bad in (b"", good[:-9], good.replace(b'"ok": true', b'"ok": null'), b"\x00" * 99):
        assert bad != good
        entry.write_bytes(bad)
        again, ran = tiny("attention/scaled")
        assert ran == ["scaled"]
        assert again["scaled"].results == before["scaled"].results
        assert entry.read_bytes() == good
    assert tiny("attention/scaled")[1] == []


def test_an_incomplete_page_is_run_every_time(root, tiny):
    edit(root / "papers/attention/scaled.md", ">>> scaled(2)\n4", ">>> import os; os._exit(0)")
    for _ in range(2):
        outcomes, ran = tiny("attention/scaled")
        assert ran == ["scaled"]
        assert "ended itself with exit code 0" in problems(outcomes["scaled"])[0][1]


def test_without_a_store_everything_is_run(root):
    project = Project(root)
    page = project.session(root / "papers/attention/scaled.md")
    ran = []
    for _ in range(2):
        project.runner(cached=False).run([page], lambda *progress: ran.append(progress))
    assert [(done, of) for done, of, _ in ran] == [(1, 1)] * 2
    assert not project.cache.exists()


def test_a_page_may_set_its_limit(root):
    path = root / "papers/attention/scaled.md"
    assert Project(root).session(path).time_limit == TIME_LIMIT
    edit(path, "---\n\n#", "time_limit: 2.5\n---\n\n#")
    assert Project(root).session(path).time_limit == 2.5
    assert Project(root).session(root / "docs/index.md").time_limit == TIME_LIMIT


def test_at_most_so_many_pages_at_once(source):
    """Each page says when it ran; none of two jobs' pages overlaps a third."""
    code = "import time\nprint(time.monotonic())\ntime.sleep(0.05)\nprint(time.monotonic())  # "
    pages = [session(f"page{n}", f'```python exec="on"\n{code}{n}\n```\n') for n in range(6)]
    found = Runner(Sources(source), None, jobs=2).run(pages)
    spans = [tuple(map(float, outputs(found[page.path])[0].split())) for page in pages]
    most = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    assert most <= 2


def test_runners_that_share_a_store_do_not_disturb_each_other(source, tmp_path):
    pages = [session(f"page{n}", f'```pycon exec="on"\n>>> {n} + 1\n{n + 1}\n>>> 1\n2\n```\n') for n in range(8)]
    found = [None] * 3

    def run(number):
        found[number] = Runner(Sources(source), Store(tmp_path), jobs=2).run(pages)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcomes in found:
        assert [problems(outcomes[page.path]) for page in pages] == [[(4, "snippet mismatch")]] * 8
    assert Runner(Sources(source), Store(tmp_path)).run(pages)[pages[0].path].cached


PROCESS = """
import sys, time
from pathlib import Path
from papercode.site.runner import Runner, Session, _CONTEXT
from papercode.site.sources import Sources
from papercode.site.store import Store
text = '```pycon exec="on"\\n>>> import torch, matplotlib.pyplot\\n>>> torch.ones({0}).sum()\\ntensor({0}.)\\n```\\n'
pages = [Session.of(Path(f"{n}.md"), text.format(n)) for n in range(1, 5)]
past = "import os; os.write(1, b'past'); os.system('echo past'); os.write(2, b'past')"
pages.append(Session.of(Path("past.md"), f'```python exec="on"\\n{past}\\n```\\n'))
outcomes = Runner(Sources(Path(sys.argv[1])), Store(Path(sys.argv[2])), jobs=1).run(pages)
assert not any(outcome.problems for outcome in outcomes.values()), outcomes
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "numpy", "matplotlib", "mkdocs"}))
"""


def test_two_processes_at_once_which_import_no_torch_and_let_nothing_through(source, tmp_path):
    script, store = tmp_path / "script.py", tmp_path / "store"
    script.write_text(PROCESS)  # no `if __name__ == "__main__"`: the workers must not run it again
    command = [sys.executable, "-W", "error", str(script), str(source), str(store)]
    processes = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said == [("[]\n", "")] * 2
    assert len([path for path in store.rglob("*") if path.is_file()]) == 5


def test_stopping_the_run_ends_its_workers(source):
    """As Ctrl-C does, while one page sleeps."""
    pages = [session("quick", '```python exec="on"\n1\n```\n'), session("slow", ENDLESS["sleeps"][1])]
    runner = Runner(Sources(source), None, jobs=2)

    def stop(*progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(pages, stop)
    patience = time.monotonic() + 20
    while multiprocessing.active_children():
        assert time.monotonic() < patience
        time.sleep(0.01)


def test_the_examples_of_a_fence():
    [claim, script, bad] = session(
        "x",
        """\
        ```pycon exec="on"
        Text.
        >>> 1
        1
        >>> if x:
        ...     2
        ```

        ```python exec="on"
        1
        2
        ```

        ```pycon exec="on"
        >>>1
        ```
        """,
    ).fences
    assert [(e.lineno, e.source, e.want) for e in examples(claim)] == [(1, "1\n", "1\n"), (3, "if x:\n    2\n", "")]
    assert [(e.lineno, e.source, e.want) for e in examples(script)] == [(0, "1\n2\n", "")]
    assert examples(bad) == []


def test_only_executed_fences_are_run():
    text = '```python\n1\n```\n\n```pycon\n>>> 1\n```\n\n```sh exec="on"\nls\n```\n\n```py exec="on"\n2\n```\n'
    assert [fence.language for fence in session("x", text).fences] == ["py"]
