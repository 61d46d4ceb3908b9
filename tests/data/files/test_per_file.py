"""Files are read once, whoever asks; what is remembered of them is never that of other content."""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from segtrain.data.files import headers as header_files
from segtrain.data.files import per_file as cached
from segtrain.data.files.headers import read_headers
from segtrain.data.parts import Header
from segtrain.errors import DataError


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files that a test has just written count as old."""
    monkeypatch.setattr(cached, "CLOCK_S", 0)


@pytest.fixture
def reads(monkeypatch):
    """The paths whose headers are read."""
    paths = []

    def counted(path):
        paths.append(path)
        return original(path)

    original = header_files.read_header
    monkeypatch.setattr(header_files, "read_header", counted)
    return paths


@pytest.fixture
def images(tmp_path):
    """Five images of 3×4, 3×5 … 3×8 pixels (height × width), as BMP: other sizes can take as many bytes."""
    paths = [str(tmp_path / f"{width}.bmp") for width in range(4, 9)]
    for width, path in enumerate(paths, 4):
        Image.new("RGB", (width, 3)).save(path)
    return paths


WANTED = [Header(3, width, "uint8") for width in range(4, 9)]


def cache_file():
    (path,) = Path(os.environ["XDG_CACHE_HOME"], "segtrain").glob("headers-*")
    return path


def test_unchanged_files_are_not_read_again(images, reads):
    assert read_headers(images) == WANTED and sorted(reads) == sorted(images)
    assert read_headers(images) == WANTED and len(reads) == 5


def test_other_content_is_read_however_alike_the_file_looks(images, reads):
    read_headers(images)
    reads.clear()
    before = os.stat(images[0])
    Image.new("RGB", (3, 3)).save(images[0])  # rows of 9 bytes are filled up to 12, as many as 4 pixels take
    os.utime(images[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(images[0]).st_size == before.st_size
    assert read_headers(images) == [Header(3, 3, "uint8"), *WANTED[1:]] and reads == images[:1]


def test_a_moved_file_is_read_again(images, reads):
    read_headers(images)
    reads.clear()
    os.replace(images[0], images[1])
    found = read_headers(images)
    assert isinstance(found[0], DataError) and found[1:] == [WANTED[0], *WANTED[2:]]


def test_files_written_a_moment_ago_are_not_trusted(images, reads, monkeypatch):
    """A second write within one tick of the file system's clock would go unseen."""
    monkeypatch.setattr(cached, "CLOCK_S", 60)
    for _ in range(2):
        assert read_headers(images) == WANTED
    assert len(reads) == 10


def test_errors_are_not_remembered(images, reads):
    good = Path(images[2]).read_bytes()
    Path(images[2]).write_bytes(b"BM")
    assert isinstance(read_headers(images)[2], DataError)
    assert isinstance(read_headers(images)[2], DataError) and reads.count(images[2]) == 2
    Path(images[2]).write_bytes(good)
    assert read_headers(images) == WANTED and len(reads) == 7


DAMAGE = {
    "empty": b"",
    "half": b'[{"state":[1',
    "deep": b"[" * 100_000,
    "another type": b'{"state": 1}',
    "too short": b"[null]",
    "nothing": b"[null,null,null,null,null]",
    "no entries": b'[1,"a",[],{},{"state":null}]',
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_cache_is_made_anew(images, reads, content):
    read_headers(images)
    cache_file().write_bytes(content)
    assert read_headers(images) == WANTED and len(reads) == 10
    assert read_headers(images) == WANTED and len(reads) == 10


@pytest.mark.parametrize(
    "value", [None, [3], [3, -4, "uint8"], ["3", 4, "uint8"], [3, 4, 8], [3, True, "uint8"]]
)
def test_an_entry_that_is_no_header_is_read_again(images, reads, value):
    read_headers(images)
    entries = json.loads(cache_file().read_text())
    entries[0]["value"] = value
    cache_file().write_text(json.dumps(entries))
    assert read_headers(images) == WANTED and reads[5:] == images[:1]


def test_a_place_that_cannot_be_written_costs_time_alone(images, reads, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert read_headers(images) == WANTED
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read_headers(images)
    path = cache_file()
    path.unlink()
    os.mkfifo(path)  # nobody writes into it, so whoever waits for content waits for ever
    assert read_headers(images) == WANTED


def test_writers_at_the_same_time(images):
    with ThreadPoolExecutor(8) as pool:
        assert all(found == WANTED for found in pool.map(lambda _: read_headers(images), range(40)))
    assert len(json.loads(cache_file().read_text())) == 5
    assert os.listdir(cache_file().parent) == [cache_file().name]


def test_few_files_start_no_threads_and_slow_ones_are_read_side_by_side():
    by = []

    def quick(path):
        by.append(threading.get_ident())
        return 1

    assert cached.per_file("tests", list("abcdefgh"), quick, int, 8) == [1] * 8
    assert set(by) == {threading.get_ident()}
    start = time.monotonic()
    assert cached.per_file("tests", list("ijklmnopq"), lambda path: time.sleep(0.2) or ord(path), int, 8) == [
        *range(ord("i"), ord("r"))
    ]
    assert time.monotonic() - start < 1.0  # one after the other: 1.8 s


def test_an_error_ends_the_reading():
    def broken(path):
        raise DataError(path)

    with pytest.raises(DataError, match="a"):
        cached.per_file("tests", ["a", "b"], broken, int, 8)
