"""A new paper from templates: bibliography stub, note, module and test, at the same path in three trees."""

import json
import keyword
import re
from importlib.resources import files
from pathlib import Path

from papercode.site.bibliography import KEY
from papercode.site.notes import FAMILIES
from papercode.site.project import Project


def scaffold(project: Project, name: str, key: str, title: str | None = None) -> list[Path]:
    """Writes the files of the paper `name` (`family/name`) and returns them; an entry that exists is left alone.

    What papers/listed.yaml knows of the paper goes into its note, and its record is taken out of that file.

    Raises:
        ValueError: the name or the key is not of the right form, or the family is not that of the record.
        FileExistsError: a file is there already; nothing has been written.
    """
    family, _, stem = name.partition("/")
    if family not in FAMILIES or not re.fullmatch(r"[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        message = f"name={name!r} must be family/name in small letters, digits and _, and no keyword of Python"
        raise ValueError(f"{message}; families: {', '.join(FAMILIES)}")
    year = re.search(r"\d{4}", key)
    if not re.fullmatch(KEY, key) or not year:
        raise ValueError(f"key={key!r} must be author, year and first word of the title, such as hu2022lora")
    record = project.listed.records.get(key, {})
    if record and record["family"] != family:
        message = f"name={name!r} puts {key} into {family!r}, papers/listed.yaml into {record['family']!r}"
        raise ValueError(f"{message}; write {record['family']}/{stem}, or change the record first")
    contribution = record.get("contribution", "TODO what the paper brought, in one sentence")
    values = {
        "key": key,
        "module": f"papercode.{family}.{stem}",
        "name": stem,
        "title": title or record.get("name") or stem.replace("_", " ").title(),
        "year": year[0],
        "builds_on": ", ".join(record.get("builds_on", [])),
        "contribution": json.dumps(
            contribution, ensure_ascii=False
        ),  # a text of JSON is one of YAML, whatever is in it
    }
    targets = {
        project.papers / f"{name}.md": "note.md",
        project.source / "papercode" / f"{name}.py": "module.py.txt",
        project.root / "tests" / family / f"test_{stem}.py": "test.py.txt",
    }
    for path in targets:
        if path.exists():
            raise FileExistsError(f"{project.relative(path)} is there already; nothing was written")
    templates = files("papercode.site") / "templates"
    for path, template in targets.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((templates / template).read_text("utf-8").format(**values), "utf-8")
    package = project.source / "papercode" / family / "__init__.py"
    if not package.exists():
        package.write_text(f'"""{FAMILIES[family]}."""\n', "utf-8")
    written = list(targets)
    if key not in project.bibliography:
        bib = project.root / "references.bib"
        with bib.open("a", encoding="utf-8") as file:
            file.write((templates / "entry.bib").read_text("utf-8").format(**values))
        written.append(bib)
    if record:
        written.append(project.papers / "listed.yaml")
        _take_out(written[-1], key)
    return written


def _take_out(path: Path, key: str) -> None:
    """Removes the record of `key` from a list; every other byte stays."""
    text = path.read_bytes().decode("utf-8")
    record = re.compile(rf"^(['\"]?){re.escape(key)}\1:.*\n?(?:[ \t]+\S.*\n?)*", re.MULTILINE)
    path.write_bytes(record.sub("", text, count=1).encode("utf-8"))
