"""Where a project keeps its notes, modules and references, and how its papers descend from one another."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from papercode.site.bibliography import Bibliography, load_bibliography
from papercode.site.collection import Listed, Paper, collect, load_listed
from papercode.site.notes import FAMILIES, Note, load_note
from papercode.site.proofs import proofs
from papercode.site.runner import TIME_LIMIT, Runner, Session
from papercode.site.sources import Sources
from papercode.site.store import Store


@dataclass(frozen=True)
class Project:
    """A folder with papers/, src/, docs/ and references.bib. Everything is read once, when first asked for."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> "Project":
        """The project that `start` belongs to.

        Raises:
            FileNotFoundError: no folder from `start` upwards holds references.bib and papers/.
        """
        start = start.resolve()
        for folder in (start, *start.parents):
            if (folder / "references.bib").is_file() and (folder / "papers").is_dir():
                return cls(folder)
        raise FileNotFoundError(f"no papercode project (references.bib and papers/) in {start} or above it")

    @property
    def papers(self) -> Path:
        """The notes: papers/<family>/<name>.md."""
        return self.root / "papers"

    @property
    def source(self) -> Path:
        """The folder on the import path: src."""
        return self.root / "src"

    @property
    def cache(self) -> Path:
        """What may be deleted at any time."""
        return self.root / ".cache" / "papercode"

    @cached_property
    def bibliography(self) -> Bibliography:
        """The entries of references.bib."""
        return load_bibliography(self.root / "references.bib")

    @cached_property
    def sources(self) -> Sources:
        """The modules below src."""
        return Sources(self.source)

    @cached_property
    def notes(self) -> list[Note]:
        """All notes: by family from the ground up, within a family by first publication."""
        order = list(FAMILIES)
        found = [load_note(path) for path in sorted(self.papers.rglob("*.md"))]
        return sorted(
            found, key=lambda n: (order.index(n.family) if n.family in order else 99, self.published(n.key), n.name)
        )

    @cached_property
    def by_path(self) -> dict[Path, Note]:
        """The note in each file."""
        return {note.path: note for note in self.notes}

    @cached_property
    def by_key(self) -> dict[str, Note]:
        """The note of each paper that has one."""
        return {note.key: note for note in self.notes}

    @cached_property
    def by_module(self) -> dict[str, Note]:
        """The note that explains each module."""
        return {module: note for note in self.notes for module in note.modules}

    @cached_property
    def listed(self) -> Listed:
        """The papers that wait for a note."""
        return load_listed(self.papers / "listed.yaml")

    @cached_property
    def collection(self) -> dict[str, Paper]:
        """Every paper with a note or on the list, by its key, the oldest first."""
        return collect(
            self.notes, self.listed, self.bibliography, self._lineage_in_code, proofs(self.root / "tests", self.sources)
        )

    def _lineage_in_code(self, note: Note) -> frozenset[str]:
        """The papers whose modules the modules of `note` import."""
        imported = {
            name for module in note.modules if module in self.sources.paths for name in self.sources.imports(module)
        }
        return frozenset(self.by_module[name].key for name in imported if name in self.by_module) - {note.key}

    def published(self, key: str) -> tuple[int, int]:
        """Year and month of the paper's first public version; what is unknown comes last."""
        entry = self.bibliography.get(key)
        return entry.published if entry else (9999, 0)

    def built_on_by(self, key: str) -> list[Note]:
        """The notes of the papers that extend `key` directly, oldest first."""
        return sorted((n for n in self.notes if key in n.builds_on), key=lambda n: self.published(n.key))

    def runner(self, *, cached: bool = True, jobs: int | None = None) -> Runner:
        """Runs snippets; with `cached`, only those whose outcome is not known."""
        return Runner(self.sources, Store(self.cache / "snippets") if cached else None, jobs)

    def session(self, path: Path) -> Session:
        """The executed fences of a Markdown file; a note may set its own time limit."""
        note = self.by_path.get(path)
        text = note.text if note else path.read_text("utf-8")
        return Session.of(self.relative(path), text, note.meta.get("time_limit", TIME_LIMIT) if note else TIME_LIMIT)

    def relative(self, path: Path) -> Path:
        """`path` as problems name it: from the project's root."""
        return path.relative_to(self.root) if path.is_relative_to(self.root) else path
