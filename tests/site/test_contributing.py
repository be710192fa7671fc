"""CONTRIBUTING.md shows commands with what they print: here they are run, in a copy of this project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from papercode.site.outputs import OPTIONS, OutputChecker
from papercode.site.project import Project
from tiny import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
CONSOLE = "\n".join(re.findall(r"^```console\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", CONSOLE, re.MULTILINE)
COPIED = ("references.bib", "pyproject.toml", "mkdocs.yml", "papers", "src", "tests", "docs")
RECORD = """\
li2021prefix:
  name: "Prefix-tuning"
  family: adaptation
  contribution: "Trainable key/value prefixes at every layer."
  builds_on: [radford2019language]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, katex) -> Path:
    """This project as it was, or will have been, before the paper of the example had its note."""
    root = tmp_path_factory.mktemp("copy") / "papercode"
    root.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    shutil.copytree(katex, Project(root).cache / katex.name)
    listed = root / "papers/listed.yaml"
    if RECORD not in (text := listed.read_text("utf-8")):
        listed.write_text(text + RECORD, "utf-8")
        for path in ("papers/{}.md", "src/papercode/{}.py", "tests/adaptation/test_prefix_tuning.py"):
            (root / path.format("adaptation/prefix_tuning")).unlink(missing_ok=True)
    return root


def test_the_commands_print_what_it_says(project):
    assert [command.split()[:2] for command, _ in COMMANDS] == [
        ["papercode", "new"],
        ["papercode", "run"],
        ["papercode", "check"],
        ["pytest", "-q"],
    ]
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    for command, expected in COMMANDS:
        done = subprocess.run(command, shell=True, cwd=project, env=environment, capture_output=True, text=True)
        assert OutputChecker().check_output(expected, done.stdout, OPTIONS), f"{command}\n{done.stdout}{done.stderr}"
        assert done.returncode == (1 if "check" in command else 0), done.stderr  # TODOs are problems


def test_every_entry_of_the_front_matter_is_told():
    told = TEXT.partition("Its front matter has")[2].partition("\n\n")[0]
    assert all(f"`{name}`" in told for name in ("key", "module", "builds_on", "contribution", "terms", "time_limit"))
