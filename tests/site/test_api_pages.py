import pytest

from papercode.site.api_pages import api_index, api_pages
from papercode.site.project import Project
from tiny import edit


@pytest.fixture
def pages(root):
    return lambda: {uri: (module, text) for uri, module, text in api_pages(Project(root))}


def test_every_module_but_the_engines_has_a_page(root, pages):
    (root / "src/zoo/site").mkdir()
    (root / "src/zoo/site/engine.py").write_text('"""No reader looks for it."""\n')
    (root / "src/zoo/training.py").write_text('"""A loop."""\n')
    assert {uri: module for uri, (module, _) in pages().items()} == {
        "api/adaptation/adapter.md": "zoo.adaptation.adapter",
        "api/attention/scaled.md": "zoo.attention.scaled",
        "api/training.md": "zoo.training",
        "api/words/plain.md": "zoo.words.plain",
    }


def test_a_page_has_docstrings_source_and_the_note(root, pages):
    _, text = pages()["api/adaptation/adapter.md"]
    assert text.startswith("---\ntitle: adaptation.adapter\n---\n\n# adaptation.adapter\n")
    assert "\n::: zoo.adaptation.adapter\n" in text
    assert "[Adapter](../../papers/adaptation/adapter.md)" in text
    for line in (root / "src/zoo/adaptation/adapter.py").read_text().splitlines():
        assert f"    {line}\n" in text
    (root / "papers/adaptation/adapter.md").unlink()
    assert "papers/" not in pages()["api/adaptation/adapter.md"][1]


def test_fences_in_the_source_do_not_end_it(root, pages):
    edit(root / "src/zoo/words/plain.py", '"""A word."""', '"""A word.\n\n    ```\n    x\n    ```\n    """')
    text = pages()["api/words/plain.md"][1]
    fence = next(line.strip().split()[0] for line in text.split("\n") if line.strip().startswith("````"))
    assert text.rstrip().endswith(f"    {fence}")
    assert text.count(fence) == 2
    assert "        ```\n" in text


def test_the_index_says_what_each_module_holds(root):
    edit(root / "src/zoo/words/plain.py", '"""Plain words."""', '"""Plain\nwords.\n\nMore about them.\n"""')
    rows = api_index(Project(root)).split("\n")
    assert rows[0] == "# Modules"
    assert "| [`zoo.words.plain`](words/plain.md) | Plain words. | [Plain](../papers/words/plain.md) |" in rows
    assert not any("More about" in row for row in rows)
    (root / "src/zoo/words/plain.py").write_text("x = 1\n")
    assert "| [`zoo.words.plain`](words/plain.md) |  | [Plain](../papers/words/plain.md) |" in api_index(Project(root))
