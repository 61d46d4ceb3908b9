"""Unpacking of archives that nobody vouches for: plain files and folders only, into a temporary folder whose
content is then renamed."""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from segtrain.errors import DataError, printable
from segtrain.run.own import check_own
from segtrain.run.storage import free_bytes, in_words, storage, storage_error

MAX_MEMBERS = 1_000_000
CHUNK = 1 << 20
STAGED = ".{}.unpacking"
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # zipfile: an encrypted member
    NotImplementedError,  # zipfile: an unknown compression
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
"""What the readers of damaged archives raise."""
ZIP_START = (b"PK\x03\x04", b"PK\x05\x06")
ENCRYPTED = 1  # bit of a zip member's flags
NO_CONTENT = re.compile(r"(^|/)(__MACOSX/|\._|\.DS_Store$)")
"""Members that macOS adds."""


class Member(NamedTuple):
    """A file or folder of an archive. name: its path, checked. size: in bytes. open: None for a folder."""

    name: str
    size: int
    open: Callable[[], BinaryIO] | None


class Counts(NamedTuple):
    """What `unpack` did. new, kept: files that were unpacked, and those that were there already. other: the
    first of those that were there with another size; None if there is none."""

    new: int
    kept: int
    other: str | None


def unpack(
    path: Path,
    into: Path,
    max_bytes: int,
    takes: tuple[str, ...] = ("",),
    strip: str = "",
    interrupt: Callable[[], None] = lambda: None,
) -> Counts:
    """Unpacks a tar (plain or compressed) or zip archive into a folder. Files that are there are kept, so
    that an interrupted unpacking resumes.

    max_bytes: how much the files may take. takes: beginnings of the names of members that are wanted. strip:
    leading folders that are removed from names; members outside of them are left out. interrupt: called for
    each member, may raise. DataError, before the member is written, for an absolute name, one with '..', a
    link, a device, an encrypted member, more than MAX_MEMBERS members or `max_bytes`; DataError for a damaged
    archive; CheckpointError if the system refuses a write.
    """
    counts, total = Counts(0, 0, None), 0
    with staging(into, path.name) as staged, _opened(path) as (raw, members):
        bar = tqdm(total=path.stat().st_size, unit="B", unit_scale=True, leave=False, disable=None)
        bar.set_description(printable(path.name))
        with bar:
            for number, member in enumerate(members(), 1):
                interrupt()
                bar.update(raw.tell() - bar.n)
                total += member.size
                _check_limits(path, number, total, max_bytes)
                name = _wanted(member.name, takes, strip)
                if name is not None:
                    counts = _unpack_member(path, member, name, into, staged, counts)
        moved_into(into, staged)
    return counts


def _unpack_member(path: Path, member: Member, name: str, into: Path, staged: Path, counts: Counts) -> Counts:
    if member.open is None:
        with storage(staged / name), _no_clash(path, name):
            (staged / name).mkdir(parents=True, exist_ok=True)
        return counts
    if os.path.lexists(into / name):
        size = os.lstat(into / name).st_size
        other = counts.other or (None if size == member.size else str(into / name))
        return counts._replace(kept=counts.kept + 1, other=other)
    if _size_of(staged / name) != member.size:
        _write(path, member, staged / name)
    return counts._replace(new=counts.new + 1)


def _check_limits(path: Path, number: int, total: int, max_bytes: int) -> None:
    if number > MAX_MEMBERS:
        raise DataError(f"{path} holds more than {MAX_MEMBERS} members; no data set that is known here does")
    if total > max_bytes:
        raise DataError(
            f"{path} unpacks to more than {in_words(max_bytes)} (max_gb); raise it if that archive is meant "
            f"to be that large"
        )


@contextlib.contextmanager
def staging(into: Path, name: str = "files") -> Iterator[Path]:
    """A folder in `into` for files that are not complete, from which `moved_into` takes them. If the block is
    interrupted or the disk is full, the folder stays, and the next call for the same name finds it; if the
    archive is refused or damaged (DataError), it is removed. name: of the archive."""
    staged = into / STAGED.format(name)
    with storage(staged):
        into.mkdir(parents=True, exist_ok=True)
        check_own(staged, folder=True, of="data set")
        staged.mkdir(exist_ok=True)
    try:
        yield staged
    except DataError:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    shutil.rmtree(staged, ignore_errors=True)


def moved_into(into: Path, staged: Path) -> None:
    """Renames what is in `staged` into `into`. Files that are there are kept; folders are merged."""
    with storage(into):
        for entry in sorted(os.scandir(staged), key=lambda entry: entry.name):
            target = into / entry.name
            if not os.path.lexists(target):
                _rename(Path(entry.path), target)
            elif entry.is_dir(follow_symlinks=False):
                if not target.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
                moved_into(target, Path(entry.path))


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.move(source, target)  # the target is in a folder that is a link to another disk


def _wanted(name: str, takes: tuple[str, ...], strip: str) -> str | None:
    """The path of a member below the folder that it is unpacked into; None if it is not wanted."""
    if not name.startswith(takes) or not name.startswith(strip) or NO_CONTENT.search(name):
        return None
    return name.removeprefix(strip) or None


def _size_of(path: Path) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:
        return None


def _write(path: Path, member: Member, target: Path) -> None:
    written = 0
    with storage(target, member.size), _no_clash(path, member.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _readable(path):
            source = member.open()
        with source, open(target, "wb") as file:
            while chunk := _read(path, source):
                written += len(chunk)
                if written > member.size:
                    break
                file.write(chunk)
    if written != member.size:
        raise DataError(
            f"{path} is damaged: {member.name} has {written} of {member.size} bytes; download it again"
        )


def _read(path: Path, source: BinaryIO) -> bytes:
    with _readable(path):
        return source.read(CHUNK)


@contextlib.contextmanager
def _no_clash(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(f"{path} holds {name}, which is both a file and a folder there") from error


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged archive raises into a DataError."""
    try:
        yield
    except DataError:
        raise
    except DAMAGED as error:
        raise DataError(
            f"{path} cannot be unpacked, it is damaged or incomplete ({type(error).__name__}: {error}); "
            f"download it again"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Callable[[], Iterator[Member]]]]:
    """The open archive file, and a function that iterates over its members."""
    with contextlib.ExitStack() as stack:
        with _readable(path):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise DataError(f"{path} is not a regular file; give the folder of the archives")
            raw = stack.enter_context(open(path, "rb"))
            start = raw.read(4)
            raw.seek(0)
            if start in ZIP_START:
                archive = stack.enter_context(zipfile.ZipFile(raw))
                members = lambda: _zip_members(path, archive)  # noqa: E731
            else:
                archive = stack.enter_context(tarfile.open(fileobj=raw, mode="r:*"))
                members = lambda: _tar_members(path, archive)  # noqa: E731
        yield raw, members


def _tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[Member]:
    with _readable(path):
        for info in archive:
            archive.members.clear()  # it would keep all of them in memory
            name = _checked_name(path, info.name)
            if not (info.isreg() or info.isdir()) or info.issparse():
                raise _refused(path, name, "a link" if info.issym() or info.islnk() else "a special file")
            try:
                tarfile.data_filter(info, str(path.parent))
            except tarfile.FilterError as error:
                raise _refused(path, name, f"refused by Python ({error})") from error
            yield Member(name, info.size, None if info.isdir() else lambda i=info: archive.extractfile(i))


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    with _readable(path):
        for info in archive.infolist():
            name = _checked_name(path, info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(path, name, "a link" if kind == stat.S_IFLNK else "a special file")
            if info.flag_bits & ENCRYPTED:
                raise _refused(path, name, "encrypted")
            yield Member(name, info.file_size, None if info.is_dir() else lambda i=info: archive.open(i))


def zip_size(path: Path) -> int | None:
    """Bytes of all files of a zip archive, as its directory states them; None for other archives."""
    with contextlib.suppress(*DAMAGED), zipfile.ZipFile(path) as archive:
        return sum(info.file_size for info in archive.infolist())
    return None


def check_space(path: Path, into: Path) -> None:
    """CheckpointError if a zip archive takes more than is free on the disk of `into`."""
    needed, free = zip_size(path), free_bytes(into)
    if needed is not None and free is not None and needed > free:
        raise storage_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), into, needed)


def _checked_name(path: Path, name: str) -> str:
    """The name of a member without '.' parts and empty ones. DataError if it leads out of the folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise _refused(path, name, "an absolute path, or one of another system")
    if ".." in parts:
        raise _refused(path, name, "a path with '..'")
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(os.fsencode(name)) > 4000:
        raise _refused(path, name[:80] + "…", "a name that is too long")
    return "/".join(parts)


def _refused(path: Path, name: str, what: str) -> DataError:
    return DataError(
        f"{path} is not unpacked: its member {name} is {what}; allowed: plain files and folders below one "
        f"folder; download it from the data set's own page"
    )
