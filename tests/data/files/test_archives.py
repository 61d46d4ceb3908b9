"""What a hostile or damaged archive may not do."""

import errno
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from segtrain.data.files import archives
from segtrain.data.files.archives import check_space, unpack
from segtrain.errors import CheckpointError, DataError

GB = 10**9


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def zip_of(path: Path, *members: tuple[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            one = zipfile.ZipInfo(name)
            one.external_attr = mode << 16
            one.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(one, content)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


CONTENT = (("a/b.txt", b"one"), ("a/c/d.txt", b"two"), ("e.txt", b"x" * 3_000_000))


@pytest.fixture(params=["tar", "tgz", "tar.xz", "zip"])
def archive(request, tmp_path):
    path = tmp_path / f"some.{request.param}"
    if request.param == "zip":
        return zip_of(path, *CONTENT)
    mode = {"tar": "w", "tgz": "w:gz", "tar.xz": "w:xz"}[request.param]
    folder = info("a", tarfile.DIRTYPE)
    return tar_of(path, (folder, b""), *((info(name), content) for name, content in CONTENT), mode=mode)


def test_all_files_once(archive, tmp_path):
    into = tmp_path / "into"
    assert unpack(archive, into, GB) == (3, 0, None)
    assert files(into) == dict(CONTENT)
    assert unpack(archive, into, GB) == (0, 3, None)
    assert files(into) == dict(CONTENT)


def test_only_what_is_wanted_without_leading_folders(archive, tmp_path):
    into = tmp_path / "into"
    unpack(archive, into, GB, takes=("a/c", "e"), strip="a/")
    assert files(into) == {"c/d.txt": b"two"}


def test_files_that_are_there_are_kept(archive, tmp_path):
    into = tmp_path / "into"
    (into / "a").mkdir(parents=True)
    (into / "a/b.txt").write_text("changed")
    (into / "a/mine.txt").write_text("mine")
    assert unpack(archive, into, GB) == (2, 1, str(into / "a/b.txt"))
    assert files(into) == {**dict(CONTENT), "a/b.txt": b"changed", "a/mine.txt": b"mine"}


def test_an_interrupted_unpacking_resumes(archive, tmp_path):
    into, seen = tmp_path / "into", []

    def interrupt():
        seen.append(None)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, into, GB, interrupt=interrupt)
    assert [
        name for name in os.listdir(into) if not name.startswith(".")
    ] == []  # nothing incomplete in place
    [staged] = into.iterdir()
    before = {path: path.stat().st_mtime_ns for path in staged.rglob("*") if path.is_file()}
    assert before
    assert unpack(archive, into, GB).new == 3
    assert files(into) == dict(CONTENT)
    assert (into / "a/b.txt").stat().st_mtime_ns in before.values()  # not unpacked again
    assert not list(into.glob(".*"))


HOSTILE = {
    "/etc/evil": "an absolute path",
    "../evil": "a path with '..'",
    "a/../../evil": "a path with '..'",
    "a\\..\\evil": "an absolute path, or one of another system",
    "C:/evil": "an absolute path, or one of another system",
    "n" * 300: "a name that is too long",
}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere(tmp_path, kind, name):
    path = tmp_path / f"evil.{kind}"
    if kind == "tar":
        tar_of(path, (info("good"), b"1"), (info(name), b"1"))
    else:
        zip_of(path, ("good", b"1"), (name, b"1"))
    with pytest.raises(DataError) as error:
        unpack(path, tmp_path / "into" / "deep", GB)
    assert HOSTILE[name] in str(error.value) and "\n" not in str(error.value)
    assert not [p for p in tmp_path.rglob("evil") if p.is_file()]
    assert not (tmp_path / "into/deep/good").exists()


LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("link", ["/etc/passwd", "inside"])
def test_links_and_devices_in_a_tar(tmp_path, kind, link):
    path = tar_of(tmp_path / "evil.tar", (info("inside"), b"1"), (info("a", kind, link), b""))
    with pytest.raises(
        DataError, match=r"its member a is a (link|special file); allowed: plain files and folders"
    ):
        unpack(path, tmp_path / "into", GB)
    assert not os.path.lexists(tmp_path / "into/a")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_in_a_zip(tmp_path, kind):
    path = zip_of(tmp_path / "evil.zip", ("a", b"/etc/passwd"), mode=kind | 0o777)
    with pytest.raises(DataError, match=r"its member a is a (link|special file)"):
        unpack(path, tmp_path / "into", GB)


def test_a_link_planted_beforehand_is_not_followed(archive, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    into = tmp_path / "into"
    into.mkdir()
    (into / f".{archive.name}.unpacking").symlink_to(elsewhere)
    with pytest.raises(CheckpointError, match="is a link"):
        unpack(archive, into, GB)
    assert not list(elsewhere.iterdir())


def test_too_much_is_refused_before_it_is_written(archive, tmp_path):
    with pytest.raises(DataError, match=r"unpacks to more than 1\.0 MB \(max_gb\)"):
        unpack(archive, tmp_path / "into", 1_000_000)
    assert not list((tmp_path / "into").rglob("e.txt"))


def test_too_many_members(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with pytest.raises(DataError, match="holds more than 2 members"):
        unpack(archive, tmp_path / "into", GB)


def test_an_encrypted_member(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("a", b"1"))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # its flags in the directory at the end
    path.write_bytes(data)
    with pytest.raises(DataError, match="its member a is encrypted"):
        unpack(path, tmp_path / "into", GB)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_incomplete_archives(archive, tmp_path, share):
    path = archive
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=r"(is damaged|cannot be unpacked).*download it again"):
        unpack(path, tmp_path / "into", GB)
    assert not (tmp_path / "into/e.txt").exists()


def test_other_content(tmp_path):
    path = tmp_path / "a.zip"
    path.write_text("<html>Please log in</html>" * 100)
    with pytest.raises(DataError, match="cannot be unpacked, it is damaged or incomplete"):
        unpack(path, tmp_path / "into", GB)


def test_a_changed_byte_in_a_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a", b"x" * 1000)
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"xyxx", 1))
    with pytest.raises(DataError, match="CRC"):
        unpack(path, tmp_path / "into", GB)
    assert not list((tmp_path / "into").iterdir())  # a later, good archive starts anew


def test_a_size_that_is_not_true(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("a", b"x" * 1000))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24  # the size in the directory at the end
    data[at : at + 4] = (5000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged: a has 1000 of 5000 bytes"):
        unpack(path, tmp_path / "into", GB)
    assert not list((tmp_path / "into").iterdir())


def test_one_name_as_file_and_folder(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("a", b"1"), ("a/b", b"1"))
    with pytest.raises(DataError, match="both a file and a folder"):
        unpack(path, tmp_path / "into", GB)


def test_what_macos_adds_is_left_out(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("a/b", b"1"), ("__MACOSX/a/._b", b"2"), ("a/.DS_Store", b"3"))
    unpack(path, tmp_path / "into", GB)
    assert list(files(tmp_path / "into")) == ["a/b"]


def test_a_full_disk(archive, tmp_path, monkeypatch):
    real = open

    def full(path, mode="r", *rest, **options):
        if "w" in mode and Path(path).name == "e.txt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, mode, *rest, **options)

    monkeypatch.setattr(archives, "open", full, raising=False)
    with pytest.raises(CheckpointError, match=r"the disk is full; needed 3\.0 MB, free"):
        unpack(archive, tmp_path / "into", GB)
    monkeypatch.undo()
    assert unpack(archive, tmp_path / "into", GB).new == 3
    assert files(tmp_path / "into") == dict(CONTENT)


def test_space_is_checked_beforehand(tmp_path, monkeypatch):
    path = zip_of(tmp_path / "a.zip", *CONTENT)
    monkeypatch.setattr(archives, "free_bytes", lambda path: 1000)
    with pytest.raises(CheckpointError, match=r"the disk is full; needed 3\.0 MB"):
        check_space(path, tmp_path)


def test_into_a_folder_that_is_a_link_to_another_disk(archive, tmp_path, monkeypatch):
    into, disk = tmp_path / "into", tmp_path / "disk"
    into.mkdir()
    disk.mkdir()
    (into / "a").symlink_to(disk)
    real = os.rename

    def other_disk(source, target):
        if (into / "a") in Path(target).parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(source, target)

    monkeypatch.setattr(archives.os, "rename", other_disk)
    unpack(archive, into, GB)
    assert files(disk) == {"b.txt": b"one", "c/d.txt": b"two"}
