"""Each entry of each table has a YAML of its name, which is the factory's signature: all options, in its order,
with its defaults."""

from pathlib import Path

import pytest
import yaml

from segtrain.build import TABLES
from segtrain.options import REQUIRED
from segtrain.settings import COMPOSITES

CONF = Path(__file__).parents[1] / "conf"
ENTRIES = [(kind, name) for kind, table in TABLES.items() for name in table.names()]


def plain(default):
    if default is REQUIRED:
        return None
    return list(default) if isinstance(default, tuple) else default


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_the_yaml_is_the_signature(kind, name):
    options = TABLES[kind].options(name)
    written = yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())
    if kind in COMPOSITES:
        assert list(written) == [name]
        written = {"name": name, **(written[name] or {})}
    assert list(written) == ["name", *options] and written.pop("name") == name
    assert written == {key: plain(option.default) for key, option in options.items()}
    assert all(option.meaning for option in options.values())
