import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from papercode.site.sources import Sources

FILES = {
    "zoo/__init__.py": "",
    "zoo/base.py": "import math\n",
    "zoo/attention/__init__.py": '"""Attention."""\n',
    "zoo/attention/scaled.py": "from zoo.base import x\nimport torch\n",
    "zoo/attention/late.py": "def f():\n    from zoo.attention.scaled import scaled\n",
    "zoo/adaptation/__init__.py": "",
    "zoo/adaptation/near.py": "from . import far\nfrom ..attention import scaled\nfrom .. import base\n",
    "zoo/adaptation/far.py": "import zoo.words as w\n",
    "zoo/words/__init__.py": "from .deep import d\n",
    "zoo/words/deep.py": "",
    "zoo/circle.py": "import zoo.round\n",
    "zoo/round.py": "import zoo.circle\n",
    "zoo/broken.py": "import zoo.base\n(\n",
    "alone.py": "",
}


@pytest.fixture
def sources(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return Sources(tmp_path)


def test_names_every_module(sources, tmp_path):
    assert sources.paths["zoo.attention.scaled"] == tmp_path / "zoo/attention/scaled.py"
    assert sources.paths["zoo.words"] == tmp_path / "zoo/words/__init__.py"
    assert len(sources.paths) == len(FILES)


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("x = 1", ""),
        ("import alone", "alone"),
        ("import os, torch, zoology", ""),
        ("import zoo", "zoo"),
        ("import zoo.base as b", "zoo zoo.base"),
        ("import zoo.attention.scaled", "zoo zoo.base zoo.attention zoo.attention.scaled"),
        ("from zoo.attention import scaled", "zoo zoo.base zoo.attention zoo.attention.scaled"),
        ("from zoo.attention.scaled import scaled, other", "zoo zoo.base zoo.attention zoo.attention.scaled"),
        ("from zoo.attention.scaled import *", "zoo zoo.base zoo.attention zoo.attention.scaled"),
        ("if x:\n    import zoo.base", "zoo zoo.base"),
        # inside a function of an imported module, too
        ("from zoo.attention import late", "zoo zoo.base zoo.attention zoo.attention.scaled zoo.attention.late"),
        # relative imports, from a module and from a package's __init__
        (
            "import zoo.adaptation.near",
            "zoo zoo.base zoo.attention zoo.attention.scaled zoo.adaptation zoo.adaptation.near zoo.adaptation.far "
            "zoo.words zoo.words.deep",
        ),
        ("import zoo.circle", "zoo zoo.circle zoo.round"),
        ("import zoo.broken", "zoo zoo.broken"),
        # a page is in no package: this fails when it is run
        ("from . import base", ""),
        ("from .zoo import base", ""),
        ("import zoo.base\n(", ""),
        ("import zoo.base\n\0", ""),
    ],
)
def test_follows_imports(sources, code, reached):
    assert sources.reached(code) == set(reached.split())


def test_a_program_that_is_not_python_hides_no_import_of_the_others(sources):
    assert sources.reached("x = (", "import alone", "from zoo import base") == {"alone", "zoo", "zoo.base"}


def test_warnings_as_errors_change_nothing(sources):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sources.reached('import alone\nx = "\\d"') == {"alone"}


def test_the_fingerprint_changes_with_a_reached_module_only(sources, tmp_path):
    code = "from zoo.attention import late"
    before = sources.fingerprint(code)
    assert list(before) == sorted(sources.reached(code))
    (tmp_path / "zoo/words/deep.py").write_text("y = 2\n", "utf-8")
    assert Sources(tmp_path).fingerprint(code) == before
    (tmp_path / "zoo/base.py").write_text("x = 2\n", "utf-8")
    after = Sources(tmp_path).fingerprint(code)
    assert {name for name in before if before[name] != after[name]} == {"zoo.base"}


def test_the_real_modules_are_reached_as_python_reaches_them():
    """What the static reading misses would leave a stale result in the cache."""
    folder = Path(__file__).parents[2] / "src"
    code = "import papercode.adaptation.lora_peft"
    script = f"import sys\n{code}\nprint(*(m for m in sys.modules if m.split('.')[0] == 'papercode'))"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert len(imported) > 4
    reached = Sources(folder).reached(code)
    assert imported <= reached
    assert not imported <= Sources(folder).reached("import papercode.attention.transformer")


def test_files_that_the_code_names_count(tmp_path):
    (tmp_path / "results").mkdir()
    results = tmp_path / "results/times.csv"
    results.write_text("1")
    sources, code = Sources(tmp_path / "src"), 'print(open("results/times.csv").read(), "a/b", 3, "results", "x" * 5)'
    assert sources.data(code, "(") == {"results/times.csv": results}
    before = sources.fingerprint(code)
    assert list(before) == ["results/times.csv"]
    results.write_text("2")
    assert sources.fingerprint(code) != before
    assert sources.fingerprint("1 + 1") == {}
