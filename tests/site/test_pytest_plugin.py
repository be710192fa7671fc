import re

import pytest

from papercode.site.runner import Runner
from tiny import edit, line_of, write_project

pytest_plugins = ["pytester"]

PASSING = ["papers/adaptation/adapter.md", "papers/attention/scaled.md", "docs/index.md"]


@pytest.fixture
def project(pytester, monkeypatch):
    """The tiny project as the folder in which pytest is run."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # those of others cost most of the time
    root = write_project(pytester.path)
    (root / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\ntestpaths = papers docs\n")
    return root


@pytest.fixture
def run(pytester, project):
    """Runs pytest in this process, so that the workers' parent is there already."""
    arguments = ["-p", "papercode.site.pytest_plugin", "-p", "no:cacheprovider", "-rA"]
    return lambda *more: pytester.runpytest_inprocess(*arguments, *map(str, more))


@pytest.fixture
def runs(monkeypatch):
    """The names of the pages that each call of the runner was asked for, and of those it had to run."""
    asked, ran = [], []
    original = Runner.run

    def counted(self, sessions, progress=None):
        sessions = list(sessions)
        asked.append(sorted(session.path.stem for session in sessions))
        return original(self, sessions, lambda done, of, outcome: ran.append(outcome.session.path.stem))

    monkeypatch.setattr(Runner, "run", counted)
    return asked, ran


def ids(result):
    return re.findall(r"^(?:PASSED|FAILED) (\S+)", result.stdout.str(), re.MULTILINE)


def lines(project, name, *texts):
    path = project / name
    return [f"{name}::{line_of(path, text)}" for text in texts]


def test_every_example_is_a_test_named_by_its_line(run, project, runs):
    result = run()
    result.assert_outcomes(passed=6)
    scaled = [">>> from zoo.attention.scaled import scaled", ">>> scaled(2)", "print('<svg"]
    adapter = ["    >>> from zoo.adaptation.adapter import adapted", "    >>> adapted(2)"]
    assert sorted(ids(result)) == sorted(
        lines(project, PASSING[0], *adapter)
        + lines(project, PASSING[1], *scaled)
        + lines(project, PASSING[2], ">>> 1 + 1")
    )
    asked, ran = runs
    assert asked == [["adapter", "index", "scaled"]]  # side by side
    assert sorted(ran) == ["adapter", "index", "scaled"]
    run().assert_outcomes(passed=6)
    assert len(ran) == 3  # nothing has changed
    run("--fresh-snippets").assert_outcomes(passed=6)
    assert len(ran) == 6


def test_a_failing_example_names_its_place_and_the_difference(run, project):
    name = PASSING[0]
    edit(project / name, "    5\n", "    6\n    >>> adapted(3)\n    7\n")
    result = run(name)
    result.assert_outcomes(passed=2, failed=1)
    [bad] = lines(project, name, "    >>> adapted(2)")
    result.stdout.fnmatch_lines(
        [
            f"*_ {name}:{bad.split('::')[1]} _*",
            f"{name}:{bad.split('::')[1]}: snippet mismatch",
            "Expected:",
            "    6",
            "Got:",
            "    5",
            f"FAILED {bad}*",
        ]
    )
    assert "runner.py" not in result.stdout.str()  # no traceback through the engine
    assert result.ret == 1


def test_one_example_can_be_asked_for(run, project, runs):
    [wanted] = lines(project, PASSING[0], "    >>> adapted(2)")
    result = run(wanted)
    result.assert_outcomes(passed=1)
    assert ids(result) == [wanted]
    assert runs[0] == [["adapter"]]  # the whole page, but no other
    edit(project / PASSING[0], "    5\n", "    6\n")
    run(wanted).assert_outcomes(failed=1)
    result = run(PASSING[0] + "::999")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*not found*999*"])


def test_examples_can_be_chosen_by_name(run, project, runs):
    result = run("-k", "scaled")
    result.assert_outcomes(passed=3, deselected=3)
    assert runs[0] == [["scaled"]]
    result = run("-k", "adapter or index")
    result.assert_outcomes(passed=3, deselected=3)
    assert runs[0][1:] == [["adapter", "index"]]


def test_a_page_that_stops(run, project):
    """What ran before passes; where it was stopped and after that there is nothing to believe."""
    name = PASSING[1]
    claim = '```pycon exec="on"\n>>> "{}"\n\'{}\'\n```\n'
    stop = '```pycon exec="on"\n>>> 1\n1\n>>> import os; os._exit(3)\n>>> 2\n2\n```\n'
    with (project / name).open("a") as file:
        file.write(f"\n{stop}\n{claim.format('after', 'after')}")
    result = run(name)
    result.assert_outcomes(passed=3, failed=4)
    text = result.stdout.str()
    here = f"{name}:{line_of(project / name, '>>> import os; os._exit(3)')}: snippet failed: the process ended itself"
    assert len([line for line in text.split("\n") if line.startswith(here)]) == 3  # each example of that fence
    after = line_of(project / name, '>>> "after"') - 1
    assert f"\n{name}:{after}: not run, because the page stopped above\n" in text


def test_a_figure_and_a_fence_that_cannot_be_parsed(run, project):
    name = PASSING[1]
    edit(project / name, "print('<svg", "x = 1\n\nprint(y, '<svg")
    edit(project / name, ">>> scaled(2)\n4\n", ">>> scaled(2)\n4\n>>>bad\n")
    result = run(name)
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert f"{name}:{line_of(project / name, 'print(y')}: snippet failed: NameError: name 'y' is not defined" in text
    assert f"{name}:{line_of(project / name, '>>>bad')}: snippet failed: this line lacks blank after >>>" in text


def test_only_the_pages_of_a_project_are_collected(run, project):
    text = (project / "docs/index.md").read_text()
    (project / "README.md").write_text(text)
    (project / "papers/plain.txt").write_text(text)
    result = run("README.md")
    assert result.ret == 4  # nothing of it is a test
    result = run(project, "--collect-only", "-q")
    found = {line.split("::")[0] for line in result.stdout.lines if "::" in line}
    assert found == set(PASSING)
    (project / "references.bib").unlink()
    assert run(project, "--collect-only", "-q").ret == 5


def test_pages_are_shared_out_among_processes(pytester, project, run):
    edit(project / PASSING[0], "    5\n", "    6\n")
    run().assert_outcomes(
        passed=5, failed=1
    )  # so that the processes read it back: starting torch in each takes seconds
    arguments = ["-p", "papercode.site.pytest_plugin", "-p", "xdist", "-p", "no:cacheprovider", "-q", "-n2"]
    result = pytester.runpytest_subprocess(*arguments, timeout=100)
    result.assert_outcomes(passed=5, failed=1)
    [bad] = lines(project, PASSING[0], "    >>> adapted(2)")
    result.stdout.fnmatch_lines([f"{bad.replace('::', ':')}: snippet mismatch", f"FAILED {bad}*"])
