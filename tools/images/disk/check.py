"""Whether an image that was downloaded or copied is the one that was built."""

from __future__ import annotations

from pathlib import Path

from tools.images.disk.publish import hash_file


def list_faults(path: Path) -> list[str]:
    """Return what is wrong with an image or a packed image, one sentence each; its sums lie beside it."""
    sums = _find_sums(path)
    if sums is None:
        return [f"{path}: there is no file of sums beside it; fetch the .img.sha256 as well"]
    lines = (line.split() for line in sums.read_text("utf-8").splitlines())
    wanted = {words[1]: words[0] for words in lines if len(words) == 2}
    if path.name not in wanted:
        return [f"{sums}: does not name {path.name}"]
    if (found := hash_file(path)) != wanted[path.name]:
        return [f"{path}: damaged: its sha256 is {found}, not {wanted[path.name]}; fetch it again"]
    return []


def _find_sums(path: Path) -> Path | None:
    name = path.name.removesuffix(".xz").removesuffix(".bmap")
    sums = path.with_name(f"{name}.sha256")
    return sums if sums.is_file() else None
