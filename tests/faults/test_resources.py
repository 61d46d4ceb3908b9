"""Memory, address space, open files, shared memory and processes that run out: exit 6 and the fix, soon."""

import json

import pytest
from program import SMALL, one_line, run

resource = pytest.importorskip("resource")


@pytest.mark.parametrize("kilobytes", [33_000, 150_000, 1_000_000, 2_000_000])
@pytest.mark.parametrize(
    "words", [["train", *SMALL, "name=run"], ["describe", "model=unet"]], ids=lambda w: w[0]
)
def test_too_little_address_space_to_import_torch(tmp_path, words, kilobytes):
    said = one_line(run(*words, cwd=tmp_path, shell=f'ulimit -v {kilobytes}; exec "$0" "$@"'), 6)
    assert "GB (ulimit -v)" in said
    assert not (tmp_path / "outputs" / "run").exists()


def test_too_little_memory_for_the_training_is_on_record(tmp_path):
    """The first layer's output for two images takes 2 GiB, of which nothing is left above torch."""
    large = ("data.size=1024", "model.widths=[256,8]", "name=run", "resume=auto")
    (tmp_path / "outputs" / "run").mkdir(parents=True)  # not made for this run, so that it stays
    ended = run("train", *SMALL, *large, cwd=tmp_path, shell='ulimit -v 4500000; exec "$0" "$@"')
    said = one_line(ended, 6)
    assert "memory" in said and "loader.batch_size" in said
    assert json.loads((tmp_path / "outputs/run/run.json").read_text())["exit_code"] == 6
