"""What headers alone do not tell: files that an interrupted copy has cut off."""

import numpy as np
import pytest
from PIL import Image

from segtrain.data.files import headers
from segtrain.data.files.headers import read_headers
from segtrain.data.parts import Header
from segtrain.errors import DataError

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_an_error(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(IMAGE).save(path)
    whole = path.read_bytes()
    assert read_headers([str(path)]) == [Header(40, 30, "uint8")]
    path.write_bytes(whole[: int(kept * len(whole))])
    (found,) = read_headers([str(path)])
    assert isinstance(found, DataError) and f"a.{suffix} cannot be decoded" in str(found)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("added", [0, 20, 5000])
def test_whole_files_are_decoded_only_where_their_end_is_far(tmp_path, monkeypatch, suffix, added):
    decoded = []
    monkeypatch.setattr(headers, "read_image", lambda path, max_pixels: decoded.append(path))
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(IMAGE).save(path)
    path.write_bytes(path.read_bytes() + bytes(added))
    assert read_headers([str(path)]) == [Header(40, 30, "uint8")]
    assert bool(decoded) == (added > 1024 and suffix in ("png", "jpg"))
