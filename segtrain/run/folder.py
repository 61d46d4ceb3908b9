"""Creates run folders and checks their names."""

from __future__ import annotations

import datetime
import re
import secrets
from pathlib import Path

from segtrain.errors import ConfigError
from segtrain.run.storage import storage, sync_folder


def create(outputs: Path | str, name: str | None = None) -> Path:
    """A new, empty run folder: outputs/NAME, or outputs/DATE/TIME-RANDOM so that two runs of one second do
    not meet.

    Raises ConfigError for a bad or taken name, CheckpointError if the storage refuses.
    """
    outputs = Path(outputs)
    if name is not None:
        check_name(name)
        folder = outputs / name
        if not _mkdir(folder):
            raise ConfigError(
                f"name={name}: {folder} exists already; choose another name, or resume that run by "
                f"resume={folder}"
            )
        return folder
    while True:
        now = datetime.datetime.now()
        folder = outputs / now.strftime("%Y-%m-%d") / f"{now:%H-%M-%S}-{secrets.token_hex(3)}"
        if _mkdir(folder):
            return folder


def check_name(name: str) -> None:
    """ConfigError unless `name` can be one folder inside outputs/ that no run without a name would share."""
    allowed = (
        "allowed: one folder name of printable characters without / and \\, not beginning with a "
        "dot, at most 200 bytes"
    )
    bad = not name.strip() or name.startswith(".") or not name.isprintable() or any(c in name for c in "/\\")
    if bad or len(name.encode(errors="replace")) > 200:
        raise ConfigError(f"name is {name!r}; {allowed}")
    if re.fullmatch(r"\d{4}-\d\d-\d\d", name):
        raise ConfigError(
            f"name is {name!r}, which is where runs of that day without a name go; choose another name"
        )


def _mkdir(folder: Path) -> bool:
    """Creates `folder` and its parents, synced to disk; False if it exists already."""
    with storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            return False
        for above in (folder.parent, folder.parent.parent):
            sync_folder(above)
    return True
