"""The catalogue and the YAMLs say what the tables say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from segtrain.cli.catalogue import Keys, load
from segtrain.commands import COMMANDS
from segtrain.settings import COMPOSITES
from segtrain.text import show

ROOT = Path(__file__).parents[2]
REMEDY = "run `python scripts/catalogue.py`"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("catalogue_script", ROOT / "scripts" / "catalogue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_catalogue_is_current(script):
    stored, current = load(), json.loads(script.text())
    for part in current:
        assert stored[part] == current[part], (
            f"segtrain/cli/catalogue.json is out of date in {part}; {REMEDY}"
        )
    assert stored.keys() == current.keys()


ENTRIES = [(group, name) for group in COMMANDS["train"].groups for name in load()["groups"][group]]


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_yaml_of_an_entry_is_its_signature(script, group, name):
    path = ROOT / "conf" / group / f"{name}.yaml"
    assert path.is_file(), f"{path} is missing; {REMEDY}"
    found, expected = yaml.safe_load(path.read_text("utf-8")), script.yaml_of(group, name)
    assert found == expected
    inner = (found[name], expected[name]) if group in COMPOSITES else (found, expected)
    assert list(inner[0]) == list(inner[1]), "the keys stand in another order than in the signature"


@pytest.mark.parametrize(("group", "name"), ENTRIES)
def test_everything_is_described(group, name):
    entry = load()["groups"][group][name]
    assert entry["about"]
    for key, option in entry["options"].items():
        assert option["meaning"], f"{group}.{key} of {name} has no line in the Options: block"


def test_every_section_key_is_described():
    for sections in load()["commands"].values():
        for content in sections.values():
            assert content["about"]
            assert all(option["meaning"] for option in content["keys"].values())


def test_every_experiment_says_what_it_is():
    assert all(load()["experiments"].values())


def test_no_yaml_without_an_entry():
    for group in COMMANDS["train"].groups:
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            entries = load()["groups"][group]
            named = path.stem in entries or (
                group in COMPOSITES and set(yaml.safe_load(path.read_text()) or {}) <= set(entries)
            )
            assert named, f"{path} describes nothing that the table {group} has"


def test_keys_of_a_command():
    keys = Keys("train")
    assert {
        "trainer.steps",
        "loader.batch_size",
        "loss.smoothing",
        "tta.flip.axes",
        "name",
        "experiment",
    } <= set(keys.all())
    assert keys.kinds("trainer.evaluate_every") == {"int", "str", "null"}
    assert keys.kinds("tta.flip.axes") == {"list"}
    assert keys.kinds("loss.nix") is None
    assert set(COMMANDS["train"].sections) == set(keys.sections)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        ([1, None], "[1,null]"),
        ({"a": [1]}, "{a:[1]}"),
        ("x", "x"),
        (0.5, "0.5"),
    ],
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert show(value) == text
