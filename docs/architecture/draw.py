"""Draw the packages of maml_jax and their imports, as they are in the code: `make architecture`."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2] / "maml_jax"
PICTURE = Path(__file__).with_name("packages.svg")
GROUND = "ground"
"""Modules directly in maml_jax, on which everything may stand; drawn as one bar."""


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else GROUND


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return the packages that each package imports, except the ground."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        if path.parent == ROOT and path.stem in ("__init__", "__main__"):
            continue
        own = found.setdefault(package_of(path), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                own.add(f"{node.module}.".removeprefix("maml_jax.").partition(".")[0])
    names = {*found} - {GROUND}
    return {name: frozenset(others & names - {name}) for name, others in found.items()}


@cache
def level(package: str) -> int:
    return 1 + max((level(other) for other in imports()[package]), default=-1)


@cache
def reach(package: str) -> frozenset[str]:
    others = imports()[package]
    return others.union(*(reach(other) for other in others))


def reads(package: str, other: str) -> bool:
    return other == package or other in reach(package)


def arrows() -> list[tuple[str, str]]:
    """Return who imports whom, without what other arrows imply."""
    return [
        (package, other)
        for package, others in imports().items()
        for other in sorted(others)
        if not any(other in reach(between) for between in others - {other})
    ]


def describe() -> str:
    """Return the picture in words; it is kept in the file, so that a test can compare."""
    return "; ".join(f"{package} -> {other}" for package, other in arrows())


def draw() -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    packages = [name for name in imports() if name != GROUND]
    rows = [
        [name for name in packages if level(name) == number]
        for number in range(1 + max(map(level, packages)))
    ]
    place = {
        name: (number - (len(row) - 1) / 2, height)
        for height, row in enumerate(rows)
        for number, name in enumerate(sorted(row[::-1], key=lambda each: reads(each, "data")))
    }
    figure = Figure(figsize=(8.6, 7.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-1.75, 1.75)
    axes.set_ylim(-1.35, len(rows) - 0.55)
    box = {"boxstyle": "round,pad=0.02", "linewidth": 1.0, "zorder": 3}

    def put(x: float, y: float, width: float, title: str, text: str, colour: str) -> None:
        patch = FancyBboxPatch((x - width / 2, y - 0.24), width, 0.48, facecolor=colour,
                               edgecolor="#56646f", **box)  # fmt: skip
        axes.add_patch(patch)
        name = {"ha": "center", "va": "center", "weight": "bold", "size": 10, "zorder": 4}
        rest = {"ha": "center", "va": "top", "size": 7, "color": "#444444", "zorder": 4}
        axes.text(x, y + (0.1 if text else 0.0), title, **name)
        axes.text(x, y + 0.01, text, **rest)

    for name, (x, y) in place.items():
        folders = sorted(path.parent.name for path in (ROOT / name).glob("*/__init__.py"))
        half = -(-len(folders) // 2) if len(", ".join(folders)) > 38 else len(folders)
        text = ", ".join(folders[:half]) + (",\n" if half < len(folders) else "")
        tables, arrays = reads(name, "data"), reads(name, "parallel")
        colour = "#eee6f4" if tables and arrays else "#e3f1e6" if tables else "#e3edf7"
        put(x, y, 0.86, name, text + ", ".join(folders[half:]), colour)
    modules = sorted(p.stem for p in ROOT.glob("*.py") if not p.stem.startswith("_"))
    put(0.0, -1.0, 2.9, "modules in maml_jax", ", ".join(modules), "#f2f2f2")
    for package, other in arrows():
        (x, y), (u, v) = place[package], place[other]
        bend = 0.0 if y - v == 1 else 0.2 if u <= x else -0.2
        axes.add_patch(
            FancyArrowPatch(
                (x, y - 0.27), (u, v + 0.27), arrowstyle="-|>", mutation_scale=10,
                color="#7a8791", linewidth=1.1, connectionstyle=f"arc3,rad={bend}", zorder=2,
            )
        )  # fmt: skip
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "maml_jax"}):
        about = {"Date": None, "Creator": None, "Description": describe()}
        figure.savefig(PICTURE, metadata=about)


if __name__ == "__main__":
    draw()
