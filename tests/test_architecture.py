"""The plan of the house: who may import whom, and how large a file or a function may grow."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("errors", "listing", "notes", "atomic", "_guard"),
    ("watchdog",),
    ("interrupts", "terminal"),
    ("parallel",),
    ("meta",),
    ("learners", "models"),
    ("testing",),
    ("data",),
    ("features",),
    ("tasks",),
    ("worlds",),
    ("backtest",),
    ("report",),
    ("experiment",),
    ("risk",),
    ("lookahead",),
    ("live",),
    ("cli",),
    ("__main__",),
)
"""From the ground up: a package imports only what stands in earlier rows."""

STRANGERS = {("data", "meta"), ("data", "parallel"), ("features", "meta"), ("features", "parallel")}
"""Lower rows that a package must not import all the same: tables know nothing of devices."""

MOST_LINES = 400
MOST_CODE = 60
MOST_PARAMETERS = 9

MANY_PARAMETERS: dict[str, str] = {
    "maml_jax.cli.fetch.bybit_command": "each is an option of the command line",
    "maml_jax.cli.fetch.binance_command": "each is an option of the command line",
    "maml_jax.cli.paper.paper_command": "each is an option of the command line",
    "maml_jax.cli.signal.signal_command": "each is an option of the command line",
    "maml_jax.cli.risk.risk_command": "each is an option of the command line",
}
"""Functions with more parameters than that, and why."""

LONG_FUNCTIONS: dict[str, str] = {
    "benchmarks.peers.batched.meta_gradient": "a derivation by hand, one graph for torch.compile",
}
"""Functions with more code than that, and why."""


def python_files(*folders: str) -> list[Path]:
    return sorted(path for name in folders for path in (ROOT / name).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    return {module_of(path): path for path in python_files("maml_jax")}


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """Yield every module that a file imports, wherever the statement stands."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole name of what is imported"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else str(node.module)


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(path, set(known))) & set(known) for name, path in known.items()}


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_packages_import_only_what_lies_below_them():
    level = {name: number for number, row in enumerate(LAYERS) for name in row}
    found = graph()
    assert {package_of(name) for name in found} - {""} == set(level), "name new packages in LAYERS"
    wrong = [
        f"{module} imports {other}"
        for module, others in found.items()
        for other in others
        if package_of(module) and package_of(other) != package_of(module)
        if level[package_of(module)] <= level.get(package_of(other), 99)
        or (package_of(module), package_of(other)) in STRANGERS
    ]
    assert not wrong, "\n".join(wrong)


def circles(found: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other (Tarjan, 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in found[module]:
            if other not in number:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1 or module in found[module]:
                groups.append(sorted(group))

    for module in found:
        if module not in number:
            visit(module)
    return groups


def test_no_modules_import_each_other():
    assert not circles(graph())


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_package_imports_what_is_private_to_another():
    wrong = []
    for path in python_files("maml_jax", "benchmarks"):
        module = module_of(path)
        for other in imports(path, set(modules())):
            if not other.startswith("maml_jax"):
                continue
            parts = other.split(".")
            for place, part in enumerate(parts):
                if part.startswith("_") and not part.startswith("__"):
                    owner = ".".join(parts[:place])
                    if not f"{module}.".startswith(f"{owner}."):
                        wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_package_says_what_is_public():
    for path in python_files("maml_jax"):
        if path.name == "__init__.py":
            assert ast.get_docstring(tree_of(path)), path
            names = {
                target.id
                for node in tree_of(path).body
                if isinstance(node, ast.Assign)
                for target in ast.walk(node)
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
            }
            assert "__all__" in names, path


@pytest.mark.parametrize("folder", ["maml_jax", "tests", "benchmarks"])
def test_no_file_is_too_long(folder):
    lines = {path: path.read_text("utf-8").count("\n") for path in python_files(folder)}
    long = {str(path.relative_to(ROOT)): n for path, n in lines.items() if n > MOST_LINES}
    assert not long


def functions(folder: str) -> Iterator[tuple[str, Path, ast.FunctionDef]]:
    for path in python_files(folder):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef):
                yield f"{module_of(path)}.{node.name}", path, node


def lines_of_code(path: Path, node: ast.FunctionDef) -> int:
    """Count lines that hold code: neither docstrings, comments nor blank lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    skipped = {
        line
        for inner in ast.walk(node)
        if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner) is not None
        for line in range(inner.body[0].lineno, (inner.body[0].end_lineno or 0) + 1)
    }
    held = set(range(node.body[0].lineno, (node.end_lineno or 0) + 1)) - skipped
    written = (lines[number - 1].strip() for number in held)
    return sum(bool(line) and not line.startswith("#") for line in written)


@pytest.mark.parametrize("folder", ["maml_jax", "benchmarks"])
def test_no_function_is_too_long(folder):
    lines = {name: lines_of_code(path, node) for name, path, node in functions(folder)}
    long = {name: number for name, number in lines.items() if number > MOST_CODE}
    assert set(long) == {name for name in LONG_FUNCTIONS if name.startswith(folder)}, long


@pytest.mark.parametrize("folder", ["maml_jax", "benchmarks"])
def test_no_function_takes_too_much(folder):
    def count(arguments: ast.arguments) -> int:
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        return sum(each.arg not in ("self", "cls") for each in named)

    many = {
        name: count(node.args)
        for name, _, node in functions(folder)
        if count(node.args) > MOST_PARAMETERS
    }
    assert set(many) == {name for name in MANY_PARAMETERS if name.startswith(folder)}, many
