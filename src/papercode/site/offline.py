"""Packs the site that offline.yml builds into one file: `python -m papercode.site.offline FOLDER ZIP`."""

import sys
import zipfile
from pathlib import Path

from tqdm import tqdm


def pack(folder: Path, target: Path) -> int:
    """Writes all of `folder` into the zip `target`, below the folder's own name; gives the size in bytes.

    Raises:
        FileNotFoundError: the folder holds no index.html, so there is no site in it.
    """
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"no site in {folder}: it has no index.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".map")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in tqdm(files, desc="packing", unit="file", disable=None):
            archive.write(path, Path(folder.name) / path.relative_to(folder))
    return target.stat().st_size


if __name__ == "__main__":
    site, archive = map(Path, sys.argv[1:])
    size = pack(site, archive)
    print(f"{archive}: {size / 1e6:.1f} MB; unpack it and open {site.name}/index.html")
