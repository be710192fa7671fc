import importlib.metadata

import nbformat
import pytest
from click.testing import CliRunner

from papercode.site.cli import main
from papercode.site.project import Project
from tiny import edit, line_of


@pytest.fixture
def papercode(root, katex):
    """Runs the command in the tiny project: exit code and lines."""

    def run(*arguments, project=root):
        done = CliRunner().invoke(main, ["--project", str(project), *map(str, arguments)])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        said = done.stdout or done.stderr  # on stderr there is a progress bar, too
        return done.exit_code, said.rstrip("\n").split("\n")

    cache = Project(root).cache
    cache.mkdir(parents=True)
    (cache / katex.name).symlink_to(katex)
    return run


def test_says_what_it_can_do():
    for arguments in (["--help"], ["-h"]):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0
        for line in ("  papercode run papers/adaptation/lora.md", "  new    ", "  run    ", "  check  "):
            assert line.strip() in done.output
        assert max(map(len, done.output.split("\n"))) <= 80
    for command in ("new", "run", "check", "notebook"):
        done = CliRunner().invoke(main, [command, "--help"])
        assert done.exit_code == 0, done.output


def test_is_installed():
    [script] = importlib.metadata.entry_points(group="console_scripts", name="papercode")
    assert script.load() is main


def test_without_a_project(papercode, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    code, lines = papercode("check", project=outside)
    assert code == 1
    assert lines == [f"Error: no papercode project (references.bib and papers/) in {outside} or above it"]


def test_tools_need_no_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('["我在家", "我很好"]')
    done = CliRunner().invoke(main, ["clean-dialogues", "in.jsonl", "out.jsonl"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out.jsonl").read_text("utf-8") == '["我在家", "我很好"]\n'
    assert CliRunner().invoke(main, ["check"]).exit_code == 1  # the others do need one
    assert "No such command 'clean'" in CliRunner().invoke(main, ["clean"]).stderr


def test_is_found_from_below(papercode, root):
    assert papercode("run", root / "docs/index.md", project=root / "src")[0] == 0


# notebook


def test_notebook_writes_what_the_site_offers(papercode, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    note = root / "papers/attention/scaled.md"
    assert papercode("notebook", note) == (0, ["Wrote scaled.ipynb"])
    assert papercode("notebook", note, "-o", "other.ipynb") == (0, ["Wrote other.ipynb"])
    assert (tmp_path / "other.ipynb").read_bytes() == (tmp_path / "scaled.ipynb").read_bytes()
    assert nbformat.read(tmp_path / "scaled.ipynb", as_version=4).cells[0].source.startswith("# Scaled\n")


def test_notebook_of_what_is_no_note_or_fails(papercode, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines = papercode("notebook", root / "docs/index.md")
    assert (code, lines[-1]) == (
        1,
        f"Error: {root}/docs/index.md is no note: those are the .md files below {root}/papers",
    )
    note = root / "papers/attention/scaled.md"
    edit(note, "\n4\n", "\n5\n")
    code, lines = papercode("notebook", note)
    assert (code, lines[0]) == (1, f"papers/attention/scaled.md:{line_of(note, '>>> scaled(2)')}: snippet mismatch")
    assert not (tmp_path / "scaled.ipynb").exists()


# new


def test_new_tells_what_it_wrote_and_what_is_left(papercode, root):
    code, lines = papercode("new", "decoders/new_one", "--key", "smith2021new", "--title", "The New One")
    assert code == 0
    assert lines[:5] == [
        "Wrote",
        "  papers/decoders/new_one.md",
        "  src/papercode/decoders/new_one.py",
        "  tests/decoders/test_new_one.py",
        "  references.bib",
    ]
    assert "`papercode check papers/decoders/new_one.md` lists what is left" in "\n".join(lines)
    assert "authors and venue in references.bib" in "\n".join(lines)
    assert "# The New One\n" in (root / "papers/decoders/new_one.md").read_text()
    code, lines = papercode("new", "decoders/new_one", "--key", "smith2021new")
    assert (code, lines) == (1, ["Error: papers/decoders/new_one.md is there already; nothing was written"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decoder/x", "--key", "smith2021new"], "Error: name='decoder/x' must be family/name"),
        (["decoders/x", "--key", "smith"], "Error: key='smith' must be author, year and first word of the title"),
    ],
)
def test_new_refuses(papercode, root, arguments, message):
    before = sorted(root.rglob("*"))
    code, lines = papercode("new", *arguments)
    assert code == 1
    assert lines[0].startswith(message)
    assert sorted(root.rglob("*")) == before


def test_new_wants_a_key(papercode):
    code, lines = papercode("new", "decoders/x")
    assert code == 2
    assert lines[-1] == "Error: Missing option '--key'."


# run


def test_run_says_what_differs(papercode, root):
    scaled, adapter = root / "papers/attention/scaled.md", root / "papers/adaptation/adapter.md"
    code, lines = papercode("run", scaled, adapter)
    assert (code, lines[-1]) == (0, "3 snippets on 2 pages, 0 problems")
    edit(adapter, "    5\n", "    6\n")
    code, lines = papercode("run", root / "papers")
    assert code == 1
    line = line_of(adapter, "    >>> adapted(2)")
    start = lines.index(f"papers/adaptation/adapter.md:{line}: snippet mismatch")
    assert lines[start + 1 : start + 5] == ["Expected:", "    6", "Got:", "    5"]
    assert lines[-1] == "3 snippets on 3 pages, 1 problems"


def test_run_update_mends_the_page(papercode, root):
    adapter = root / "papers/adaptation/adapter.md"
    good = adapter.read_text()
    edit(adapter, "    5\n", "    6\n    7\n")
    edit(adapter, "    >>> adapted(2)", "    >>> adapted('x')\n    >>> adapted(2)")
    code, lines = papercode("run", "--update", adapter)
    assert code == 1
    assert lines[-2] == "updated papers/adaptation/adapter.md: read the difference before you believe it"
    text = adapter.read_text()
    indented = "\n".join(
        f"    {line}"
        for line in (
            ">>> adapted('x')",
            "Traceback (most recent call last):",
            "    ...",
            'TypeError: can only concatenate str (not "int") to str',
            ">>> adapted(2)",
            "5",
            "```",
        )
    )
    assert indented in text
    code, lines = papercode("run", adapter)
    assert (code, lines[-1]) == (0, "1 snippets on 1 pages, 0 problems")
    code, lines = papercode("run", "--update", adapter)
    assert (code, lines) == (0, ["1 snippets on 1 pages, 0 problems"])
    assert adapter.read_text() == text
    adapter.write_text(good)
    assert papercode("run", "--update", adapter)[0] == 0
    assert adapter.read_text() == good


def test_run_fresh_runs_what_is_known(papercode, root, monkeypatch):
    page = root / "docs/index.md"
    ran = []
    monkeypatch.setattr("papercode.site.cli.progress_bar", lambda: lambda done, of, outcome: ran.append(done))
    for arguments, expected in (([], 1), ([], 1), (["--fresh"], 2), (["--jobs", "1"], 2)):
        assert papercode("run", *arguments, page)[0] == 0
        assert len(ran) == expected, arguments


def test_run_refuses_what_is_no_page(papercode, root):
    code, lines = papercode("run", root / "references.bib")
    assert (code, lines) == (1, ["Error: references.bib is no Markdown page"])
    assert papercode("run")[0] == 2
    code, lines = papercode("run", root / "papers/nothing.md")
    assert code == 2
    assert "does not exist" in lines[-1]
    assert papercode("run", "--jobs", "0", root / "docs/index.md")[0] == 2


# check


def test_check_finds_nothing_in_a_good_project(papercode):
    assert papercode("check") == (0, ["no problems"])


def test_check_lists_findings_by_file_and_line(papercode, root):
    adapter, scaled = root / "papers/adaptation/adapter.md", root / "papers/attention/scaled.md"
    edit(adapter, "    5\n", "    6\n")
    edit(scaled, "About evidence", "As [@nobody2020x] says, about evidence")
    expected = [
        f"papers/adaptation/adapter.md:{line_of(adapter, '    >>> adapted(2)')}: snippet mismatch",
        f"papers/attention/scaled.md:{line_of(scaled, 'nobody2020x')}: unknown citation key @nobody2020x: "
        "add it to references.bib or correct it",
    ]
    code, lines = papercode("check")
    assert code == 1
    assert [line for line in lines if line.startswith("papers/")] == expected
    assert lines[-1] == "2 problems"
    # of the named pages only; without running
    assert papercode("check", root / "papers/words") == (0, ["no problems"])
    code, lines = papercode("check", scaled)
    assert (code, lines) == (1, [expected[1], "1 problems"])
    code, lines = papercode("check", "--no-run")
    assert (code, lines) == (1, [expected[1], "1 problems"])
