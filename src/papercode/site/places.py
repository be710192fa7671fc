"""Where the pages of the site and the files of the project can be read by someone who has a copy of neither."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

import yaml
from mkdocs.utils.yaml import yaml_load

from papercode.site.header import api_page_of
from papercode.site.project import Project


@dataclass(frozen=True)
class Places:
    """Absolute addresses; a page that has none on the web is looked for in the repository.

    Attributes:
        project: whose pages and files they are.
        site: the address of the site; empty if it has none.
        repository: the address of the repository; empty if it has none.
        folders: whether the page a/b.md is at a/b/, or else at a/b.html.
    """

    project: Project
    site: str = ""
    repository: str = ""
    folders: bool = True

    @classmethod
    def of(cls, project: Project, settings: Mapping[str, Any]) -> "Places":
        """The places that the entries of mkdocs.yml name."""
        site, repository = (str(settings.get(name) or "").rstrip("/") for name in ("site_url", "repo_url"))
        return cls(project, site, repository, settings.get("use_directory_urls", True))

    @classmethod
    def read(cls, project: Project) -> "Places":
        """The places that the project's mkdocs.yml names; none if it cannot be read."""
        try:
            with (project.root / "mkdocs.yml").open("rb") as file:
                settings = yaml_load(file)  # which knows !ENV
        except (OSError, yaml.YAMLError):
            settings = None
        return cls.of(project, settings if isinstance(settings, dict) else {})

    @property
    def licence(self) -> str:
        """What the project's LICENSE is called; empty if there is none."""
        path = self.project.root / "LICENSE"
        return path.read_text("utf-8").partition("\n")[0].strip() if path.is_file() else ""

    @property
    def web(self) -> tuple[str, str, bool, str]:
        """All that a notebook takes from here but for what stands in notes, modules and bibliography."""
        return self.site, self.repository, self.folders, self.licence

    def file(self, name: str) -> str | None:
        """A file of the project, by its path from the root."""
        return f"{self.repository}/blob/main/{name}" if self.repository else None

    def page(self, uri: str) -> str | None:
        """A page, as MkDocs names sources, `papers/adaptation/lora.md#claim-checked`; None if nobody can reach it."""
        source, hash_, anchor = uri.partition("#")
        if self.site:
            path = PurePosixPath(source)
            stem = path.parent if path.name == "index.md" else path.with_suffix("")
            address = f"{stem}/" if self.folders else str(path.with_suffix(".html"))
            return f"{self.site}/{'' if address == './' else address}{hash_}{anchor}"
        if source.startswith("api/"):
            return self._module(source)
        name = source if source.startswith("papers/") else f"docs/{source}"
        found = (self.project.root / name).is_file()  # pages that the build makes are in no repository
        return (self.file(name) or "") + hash_ + anchor if found and self.repository else None

    def linked(self, target: str, page: str) -> str | None:
        """What the relative link `target` on the page `page` leads to."""
        return self.page(normpath(f"{PurePosixPath(page).parent}/{target}"))

    def object(self, name: str) -> str | None:
        """A module, class or function by its dotted name: on the page of its module, or in its source."""
        module = name
        while module and module not in self.project.sources.paths:
            module = module.rpartition(".")[0]
        return self.page(f"{api_page_of(module)}#{name}") if module else None

    def _module(self, uri: str) -> str | None:
        """The source of the module that an API page is about."""
        for module, path in self.project.sources.paths.items():
            if api_page_of(module) == uri:
                return self.file(self.project.relative(path).as_posix())
        return None
