"""Imports go strictly downward and never between siblings, so that every part can be read and replaced alone."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "segtrain"
GROUPS = ("model", "data", "augmentation", "loss", "optimizer", "schedule", "metric", "tta", "task")
"""Tables: the leaves of each stand on floor 1, its __init__ on floor 2."""

FLOORS = (
    (
        "errors",
        "options",
        "registry",
        "text",
        "settings",
        "rows",
        "run",
        "sample",
        "tensors",
        "ranks",
        "thresholds",
    ),
    ("leaves", "report", "sweep"),
    ("tables",),
    ("checkpoint", "loader", "predictor"),
    ("evaluate", "train"),
    ("build", "commands"),
    ("cli",),
    ("__main__",),
)
"""Floors from the ground up; on one floor a part may import those that stand left of it, except among GROUPS.
"rows" are those of the commands, in commands/__init__.py, which import no command."""

INSIDE = {"model": ("network", "parts", "encoder", "output_stride")}
"""Inside a group: folders and modules that import only those left of them. All others may import these."""

ORDER = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}
MAX_IMPORTS, MAX_LINES, MAX_COLUMNS = 15, 400, 110
FILES = sorted(PACKAGE.rglob("*.py"))


def parts(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


def place(module: tuple[str, ...]) -> tuple[int, int]:
    """(floor, place on it) of a module."""
    if module in (("commands",), ("commands", "__init__")):
        return ORDER["rows"]
    if module[0] in GROUPS:
        return ORDER["tables" if len(module) == 1 or module[1] == "__init__" else "leaves"]
    return ORDER[module[0]] if module[0] != "__init__" else (0, -1)


def named(text: str) -> tuple[str, ...]:
    """The module that `segtrain.loss.dice.dice` names: ("loss", "dice"); () if it is none of ours."""
    words = text.split(".")
    module = tuple(words[1:]) if words[0] == "segtrain" else ()
    while module and not (
        PACKAGE.joinpath(*module).is_dir() or PACKAGE.joinpath(*module).with_suffix(".py").is_file()
    ):
        module = module[:-1]
    return module


def imports(path: Path) -> set[tuple[str, ...]]:
    """Modules of segtrain that a file imports, in functions and by importlib too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            names = [str(name).rstrip(".") for name in names]
        else:
            continue
        found |= {module for name in names if (module := named(name))}
    return found - {parts(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_imports_go_down(path):
    own = parts(path)
    for other in imports(path):
        if own[0] == other[0]:
            is_table = len(other) == 1 and own[0] in GROUPS
            assert not is_table or own[-1] == "__init__", f"{own} imports its own table"
            order = INSIDE.get(own[0], ())
            if own[1:] and own[1] in order and own[1] != other[1]:
                assert other[1] in order[: order.index(own[1])], f"{own} imports {other}"
            continue
        if own[0] in GROUPS and other[0] in GROUPS:
            pytest.fail(f"group {own[0]} imports group {other[0]}: {'.'.join(own)} -> {'.'.join(other)}")
        assert place(other) < place(own), (
            f"{'.'.join(own)} {place(own)} imports {'.'.join(other)} {place(other)}"
        )


def test_no_cycle():
    graph = {parts(path): imports(path) for path in FILES}

    def as_files(module: tuple[str, ...]) -> tuple[str, ...]:
        return module if module in graph else (*module, "__init__")

    graph = {own: {as_files(other) for other in others} - {own} for own, others in graph.items()}
    done: set[tuple[str, ...]] = set()

    def visit(module, above):
        assert module not in above, f"cycle: {' -> '.join('.'.join(one) for one in (*above, module))}"
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_no_module_knows_or_holds_too_much(path):
    # A table knows its leaves, and build knows the tables.
    is_table = parts(path)[1:] == ("__init__",) and parts(path)[0] in GROUPS
    assert is_table or len(imports(path)) <= MAX_IMPORTS, sorted(imports(path))
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= MAX_LINES
    assert not [line for line in lines if len(line) > MAX_COLUMNS]


def test_few_files_lie_beside_the_folders():
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def external(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(parts(p)))
def test_hydra_stays_in_cli(path):
    if parts(path)[0] != "cli":
        assert not external(path) & {"hydra", "omegaconf"}, f"{path} knows the config library"


GROUND = [path for path in FILES if parts(path)[0] in ("errors", "options", "registry", "text", "run")]


@pytest.mark.parametrize("path", GROUND, ids=lambda p: "/".join(parts(p)))
def test_the_ground_floor_needs_the_standard_library_only(path):
    yaml = {"yaml"} if parts(path)[0] == "run" else set()
    assert external(path) <= sys.stdlib_module_names | {"segtrain"} | yaml
