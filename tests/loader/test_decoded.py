"""Decoded samples on disk: the same batches as from the files, and never those of other content."""

import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segtrain.augmentation import AUGMENTATION
from segtrain.data.concat import Mapped
from segtrain.data.files import per_file
from segtrain.data.files.labels import Labels
from segtrain.data.files.pairs import Pair, PairedFiles
from segtrain.data.joined import ConcatSplit, SubsetSplit
from segtrain.data.parts import Source
from segtrain.data.shapes import shapes
from segtrain.errors import CheckpointError, ConfigError, DataError, Interrupted
from segtrain.loader import decoded as decoded_format
from segtrain.loader import decoding
from segtrain.loader.decoded import Decoded
from segtrain.loader.loader import training_batches
from segtrain.run import storage
from segtrain.sample import Sample
from segtrain.settings import Loader

COUNT = 9
WARP = {"warp": {"size": [24, 32]}, "colour": {}}


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files that a test has just written count as old."""
    monkeypatch.setattr(per_file, "CLOCK_S", 0)


def as_objects(stored):
    return stored.astype(np.uint16)


@pytest.fixture
def files(tmp_path) -> PairedFiles:
    """Images of 40×60 with masks of values 0 to 4 and with numbers of objects."""
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(COUNT):
        arrays = {
            "image": rng.integers(0, 256, (40, 60, 3), np.uint8),
            "mask": rng.integers(0, 5, (40, 60), np.uint8),
            "objects": rng.integers(0, 9, (40, 60), np.uint8),
        }
        paths = {kind: str(tmp_path / f"{kind}-{index}.png") for kind in arrays}
        for kind, array in arrays.items():
            Image.fromarray(array).save(paths[kind])
        pairs.append(Pair(paths["image"], paths["mask"], f"name-{index}", "group", paths["objects"]))
    return PairedFiles(pairs, Labels(5), objects=as_objects)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def settings(cache="disk", folder=None, **options):
    return Loader(batch_size=4, cache=cache, cache_dir=None if folder is None else str(folder), **options)


def batches(split, loader, count=5, start=0, augmentation=WARP):
    ops = AUGMENTATION.build_each(augmentation, ignore_index=255, fill=(9.0, 99.0, 199.0))
    with_end = training_batches(split, ops, loader, seed=3, start=start)
    try:
        return [next(with_end) for _ in range(count)]
    finally:
        with_end.close()


def equal(ours, theirs):
    return all(
        torch.equal(a.images, b.images)
        and torch.equal(a.targets.nan_to_num(-1), b.targets.nan_to_num(-1))
        and (a.names, a.positions, a.skipped) == (b.names, b.positions, b.skipped)
        for a, b in zip(ours, theirs, strict=True)
    )


def folders(cache) -> list[Path]:
    """The finished folders."""
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def leftovers(cache) -> list[Path]:
    return list(cache.glob(".building-*/*")) + list(cache.glob(".*.tmp"))


def no_files(monkeypatch):
    """From here on nothing is decoded."""

    def refuse(*_):
        raise AssertionError("a file is decoded")

    monkeypatch.setattr(PairedFiles, "__getitem__", refuse)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_files_memory_and_disk(files, cache, workers):
    plain = batches(files, settings("none", workers=workers))
    assert equal(batches(files, settings("memory", workers=workers)), plain)
    assert equal(batches(files, settings(folder=cache, workers=workers)), plain)
    resumed = batches(files, settings(folder=cache, workers=2 - workers), count=3, start=8)
    assert equal(resumed, plain[2:])
    assert len(folders(cache)) == 1 and not leftovers(cache)


def test_a_finished_folder_is_read_instead_of_the_files(files, cache, monkeypatch):
    plain = batches(files, settings("none", workers=0))
    batches(files, settings(folder=cache, workers=0))  # builds the folder
    no_files(monkeypatch)
    assert equal(batches(files, settings(folder=cache, workers=0)), plain)


def test_samples_keep_all_that_they_have(files, cache):
    read = decoding.decoded(files, settings(folder=cache))
    for index in range(COUNT):
        ours, theirs = read[index], files[index]
        for kind in ("image", "target", "instances"):
            mine, other = getattr(ours, kind), getattr(theirs, kind)
            assert type(mine) is np.ndarray and mine.dtype == other.dtype and (mine == other).all()
            assert not mine.flags.writeable
        assert (ours.name, ours.group) == (theirs.name, theirs.group)
        assert (read.name(index), read.size(index)) == (files.name(index), files.size(index))
        assert (read.target(index) == theirs.target).all()
    assert read.headers(range(COUNT)) == files.headers(range(COUNT))


class Measured:
    """uint16 images of five channels with two float values a pixel, some unknown, some samples unreadable."""

    def __init__(self, broken=()):
        self.broken = set(broken)

    def __len__(self):
        return COUNT

    def name(self, index):
        return f"measured-{index}"

    def size(self, index):
        return 30, 40

    def source(self, index):
        return Source((), f"measured {index}")

    def __getitem__(self, index):
        if index in self.broken:
            raise DataError(f"measured-{index} cannot be read")
        rng = np.random.default_rng(index)
        target = rng.random((30, 40, 2), np.float32)
        target[rng.random((30, 40)) < 0.1] = np.nan
        return Sample(rng.integers(0, 65536, (30, 40, 5), np.uint16), target, None, self.name(index))


def test_other_types_and_measured_targets(cache, monkeypatch):
    monkeypatch.setattr(decoded_format, "SHARD_BYTES", 50_000)  # several shards
    plain = batches(Measured(), settings("none", workers=0), augmentation={})
    read = decoding.decoded(Measured(), settings(folder=cache))
    assert equal(batches(read, settings(folder=cache, workers=0), augmentation={}), plain)
    assert np.isnan(read[0].target).any() and read[0].image.dtype == np.uint16
    assert len(list(folders(cache)[0].glob("shard-*"))) > 2


def test_unreadable_samples(cache):
    with pytest.raises(DataError, match="measured-2"):
        decoding.decoded(Measured([2]), settings(folder=cache))
    assert not folders(cache) and not leftovers(cache)
    plain = batches(Measured([2]), settings("none", workers=0, on_bad="skip"), augmentation={})
    loader = settings(folder=cache, workers=0, on_bad="skip")
    assert equal(batches(Measured([2]), loader, augmentation={}), plain) and any(b.skipped for b in plain)
    # A run that does not skip finds the sample unreadable, or reads it if it has been repaired meanwhile.
    with pytest.raises(DataError, match="measured-2"):
        decoding.decoded(Measured([2]), settings(folder=cache))[2]
    assert decoding.decoded(Measured(), settings(folder=cache))[2].name == "measured-2"


def test_a_sample_that_occurs_twice_is_stored_once(files, cache):
    often = ConcatSplit([SubsetSplit(files, [0, 1, 1, 1, 0]), files])
    read = decoding.decoded(often, settings(folder=cache))
    assert [read[index].name for index in range(6)] == [f"name-{index}" for index in (0, 1, 1, 1, 0, 0)]
    stored = sum(path.stat().st_size for path in folders(cache)[0].glob("shard-*"))
    decoding.decoded(files, settings(folder=cache / "alone"))
    assert stored == sum(path.stat().st_size for path in folders(cache / "alone")[0].glob("shard-*"))


def overwritten(path: Path, array: np.ndarray) -> None:
    """Another image of the same size in bytes and with the same mtime."""
    before = path.stat()
    Image.fromarray(array).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def changed_mask(split):
    overwritten(Path(split.pairs[3].mask), np.full((40, 60), 4, np.uint8))
    return split


@pytest.mark.parametrize(
    "changed",
    [
        changed_mask,
        lambda split: PairedFiles(
            split.pairs, Labels(5, label_map={v: 4 - v for v in range(5)}), objects=as_objects
        ),
        lambda split: PairedFiles(split.pairs, split.labels),
        lambda split: PairedFiles(split.pairs[::-1], split.labels, objects=as_objects),
        lambda split: Mapped(split, np.array([1, 1, 1, 1, 1] + [255] * 251, np.uint8)),
    ],
    ids=["mask", "label_map", "objects", "order", "class_map"],
)
def test_a_change_leads_to_another_folder(files, cache, changed):
    decoding.decoded(files, settings(folder=cache))
    other = changed(files)
    read = decoding.decoded(other, settings(folder=cache))
    assert len(folders(cache)) == 2
    for index in range(COUNT):
        assert (read[index].target == other[index].target).all()
        assert (read[index].instances is None) == (other[index].instances is None)


def test_splits_tell_apart_what_they_draw(cache):
    keys = {
        decoding._key([shapes(size=48, seed=seed).splits[part].source(0)])
        for seed in (0, 1)
        for part in ("train", "val")
    }
    assert len(keys) == 4


def flipped(path: Path) -> None:
    """A byte of the middle changed, size and mtime as before."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-70])


@pytest.mark.parametrize("damage", [flipped, cut, Path.unlink])
@pytest.mark.parametrize("name", ["shard-0000", "index.json"])
def test_a_damaged_folder_is_built_again(files, cache, damage, name, capsys):
    decoding.decoded(files, settings(folder=cache))
    damage(folders(cache)[0] / name)
    read = decoding.decoded(files, settings(folder=cache))
    assert "are damaged" in capsys.readouterr().err
    assert all((read[index].image == files[index].image).all() for index in range(COUNT))
    assert len(folders(cache)) == 1 and not leftovers(cache)
    decoding.decoded(files, settings(folder=cache))
    assert not capsys.readouterr().err


def test_a_copied_folder_is_believed_after_hashing(files, cache, monkeypatch):
    decoding.decoded(files, settings(folder=cache))
    shutil.copytree(cache, cache.parent / "copy")
    no_files(monkeypatch)
    decoding.decoded(files, settings(folder=cache.parent / "copy"))


def test_a_folder_that_is_removed_in_mid_run(files, cache):
    plain = batches(files, settings("none", workers=0))
    read = decoding.decoded(files, settings(folder=cache))
    shutil.rmtree(cache)
    assert equal(batches(read, settings(folder=cache, workers=0)), plain)


Usage = namedtuple("Usage", "total used free")


def test_too_little_space_is_said_before_anything_is_decoded(files, cache, monkeypatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 50_000, 50_000))
    # 9 samples of 40·60 pixels of 3 + 1 + 2 bytes
    with pytest.raises(
        CheckpointError, match=r"needed 129\.6 kB, free 50\.0 kB.*loader\.cache_dir"
    ) as caught:
        decoding.decoded(files, settings(folder=cache))
    assert caught.value.exit_code == 4 and not cache.exists()


def test_a_disk_that_fills_up(files, cache, monkeypatch):
    def full(self, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_format.Writer, "_append", full)
    with pytest.raises(CheckpointError, match=r"the disk is full; needed 129\.6 kB"):
        decoding.decoded(files, settings(folder=cache))
    assert not folders(cache) and not leftovers(cache)


def test_an_interruption_leaves_nothing(files, cache):
    calls = iter(range(4))

    def interrupt():
        if next(calls, None) is None:
            raise Interrupted(2, "stopped by SIGINT")

    with pytest.raises(Interrupted):
        decoding.decoded(files, settings(folder=cache), interrupt)
    assert not folders(cache) and not leftovers(cache)


def test_what_a_killed_builder_left_is_not_believed(files, cache, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(decoded_format.Writer, "write_index", lambda *_: os._exit(9))
        builder = multiprocessing.get_context("fork").Process(
            target=decoding.decoded, args=(files, settings(folder=cache))
        )
        builder.start()
        builder.join()
    assert builder.exitcode == 9 and leftovers(cache) and not folders(cache)
    plain = batches(files, settings("none", workers=0))
    assert equal(batches(files, settings(folder=cache, workers=0)), plain)
    assert not leftovers(cache)


def build_at_once(barrier, files, cache):
    original = decoding._published

    def together(*words):
        barrier.wait(20)  # both have decoded everything
        return original(*words)

    decoding._published = together
    decoding.decoded(files, settings(folder=cache))


def test_two_builders_at_once(files, cache):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    builders = [context.Process(target=build_at_once, args=(barrier, files, cache)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(60)
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert len(folders(cache)) == 1 and not leftovers(cache)
    plain = batches(files, settings("none", workers=0))
    assert equal(batches(files, settings(folder=cache, workers=0)), plain)


def test_files_that_change_meanwhile(files, cache):
    calls = iter(range(COUNT))

    def change():
        if next(calls) == 5:
            changed_mask(files)

    with pytest.raises(DataError, match="changed while"):
        decoding.decoded(files, settings(folder=cache), change)
    assert not folders(cache) and not leftovers(cache)


class Silent(Measured):
    def __getattribute__(self, name):
        if name == "source":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("split", [Silent(), SubsetSplit(Silent(), [0, 1])])
def test_a_split_that_does_not_tell_its_files(split):
    with pytest.raises(ConfigError, match=r"loader\.cache=disk"):
        decoding.decoded(split, settings())


def test_without_a_folder_the_cache_of_the_user_is_used(files):
    read = decoding.decoded(files, settings())
    assert isinstance(read, Decoded)
    assert read.folder.parent == Path(os.environ["XDG_CACHE_HOME"], "segtrain", "decoded")
    assert decoding.decoded(read, settings()) is read
    assert decoding.decoded(files, settings("none")) is files


def test_files_just_written_are_waited_for(tmp_path, monkeypatch):
    """A further write within the resolution of the file system's clock would leave the times unchanged."""
    monkeypatch.setattr(per_file, "CLOCK_S", 0.3)
    path = tmp_path / "file"
    path.write_bytes(b"1")
    states = per_file.settled_states([str(path), str(tmp_path / "none")])
    assert states[str(tmp_path / "none")] is None
    assert per_file.time.time() - path.stat().st_mtime >= 0.29 and states[str(path)][0] == 1
