"""Files that are on the disk when a call returns, and that a crash leaves as they were or as they are to be."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["replace_durably", "sync_folder", "write_durably"]


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that nobody reads yet."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """So that a reader, or whoever comes after a crash, finds the old content or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    write_durably(draft, content)
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Files that were renamed to or within ``folder`` are so after a power cut too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
