"""Imports go strictly downward and never between groups, so that every part can be read and replaced
alone."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "segtrain"
GROUPS = ("model", "data", "augmentation", "loss", "optimizer", "schedule", "metric", "tta", "task", "report")
FLOORS = {
    "__init__": 0, "errors": 0, "options": 0.1, "registry": 0.2,
    "sample": 0.5, "settings": 0.5,
    "tiles": 2.4, "boxes": 2.5, "crf": 2.5, "predictor": 3, "loader": 3, "checkpoint": 3, "run_folder": 3, "events": 3,
    "compiled": 3, "initial": 3.5,
    "train": 4, "evaluate": 4, "compare": 4, "predict": 4, "describe": 4,
    "schema": 4.5, "assemble": 5,
    "cli": 6, "compose": 6, "overrides": 6, "catalogue": 6, "sweep": 6, "stages": 6, "help": 6, "launch": 6, "plain_yaml": 6, "__main__": 7,
}  # fmt: skip
"""Floors of the modules outside the groups. Within 3: run_folder < checkpoint < predictor, see BESIDE."""

BESIDE = {
    ("checkpoint", "run_folder"),
    ("predictor", "checkpoint"),
    ("loader", "run_folder"),
    ("events", "run_folder"),
    ("train", "evaluate"),
    ("compare", "evaluate"),
}
"""The few modules of one floor that may use another one of it."""


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def floor(module: tuple[str, ...]) -> float:
    if module[0] in GROUPS:
        return 2 if len(module) == 1 or module[1] == "__init__" else 1
    return FLOORS[module[0]]


def imports(path: Path) -> set[tuple[str, ...]]:
    """Modules of segtrain that a file imports, in functions too; names that are not modules are cut off."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            words = name.split(".")
            if words[0] != "segtrain" or len(words) == 1:
                continue
            module = tuple(words[1:])
            while module and not (
                (PACKAGE.joinpath(*module)).is_dir() or PACKAGE.joinpath(*module).with_suffix(".py").is_file()
            ):
                module = module[:-1]
            if module:
                found.add(module)
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_imports_go_down(path):
    own = parts(path)
    for other in imports(path):
        same_group = own[0] in GROUPS and other[0] == own[0]
        if same_group:
            assert own[-1] == "__init__" or len(other) > 1, (
                f"{'.'.join(own)} imports its own table {'.'.join(other)}"
            )
        elif own[0] in GROUPS and other[0] in GROUPS:
            pytest.fail(f"group {own[0]} imports group {other[0]}: {'.'.join(own)} -> {'.'.join(other)}")
        elif (own[0], other[0]) in BESIDE or (floor(own) >= 6 and floor(other) >= 6):
            continue
        else:
            assert floor(other) < floor(own), (
                f"{'.'.join(own)} (floor {floor(own)}) imports {'.'.join(other)} (floor {floor(other)})"
            )


def external(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_hydra_stays_on_the_top_floor(path):
    if parts(path)[0] in GROUPS or floor(parts(path)) < 6:
        assert not external(path) & {"hydra", "omegaconf"}, f"{path} knows the config library"


@pytest.mark.parametrize("name", ["errors", "options", "registry"])
def test_the_ground_floor_needs_the_standard_library_only(name):
    assert not external(PACKAGE / f"{name}.py") & {
        "torch",
        "numpy",
        "hydra",
        "omegaconf",
        "cv2",
        "PIL",
        "timm",
    }


def test_run_folder_needs_no_torch():
    assert not external(PACKAGE / "run_folder.py") & {"torch", "numpy"}
