"""Configs as YAML text and back."""

import os

import pytest

from segtrain.errors import ConfigError
from segtrain.run.plain_yaml import MAX_NODES, parse_yaml, read_yaml, to_yaml


@pytest.mark.parametrize(
    "value", [os.fsdecode(b"stra\xdfe"), "\U0001f600 草", r"C:\ud8ff", r"\\ud8ff", "a\x1bb", "tab\tnew\nline"]
)
def test_any_text_that_python_has_of_a_path_comes_back(tmp_path, value):
    path = tmp_path / "config.yaml"
    path.write_bytes(to_yaml({"data": {"root": value, "classes": [value]}}).encode())
    assert read_yaml(path) == {"data": {"root": value, "classes": [value]}}


def test_surrogates_do_not_hide_what_is_counted(tmp_path):
    text = "[" + '"\\uDCDF",' * MAX_NODES + "]"
    with pytest.raises(ConfigError, match="holds more than"):
        parse_yaml(text, tmp_path)
