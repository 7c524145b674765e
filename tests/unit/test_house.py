"""The house's own rules: who may import whom, and which third-party library lives in which room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "gitian"

RANKS = {"errors": 0, "names": 0, "host": 1, "formats": 1, "plan": 2, "canon": 2, "inputs": 3, "guest": 3, "sigs": 3,
         "images": 4, "environment": 4, "sigsrepo": 4, "update": 4, "attest": 4, "lint": 4, "build": 5,
         "vary": 6, "cli": 9}

FENCES = {
    "subprocess": {"host/process.py"},
    "paramiko": {"guest/ssh.py"},
    "git": {"inputs/git.py", "inputs/gittree.py"},
    "gnupg": {"sigs/gpg.py"},
    "yaml": {"formats/yamlio.py"},
    "rich": {"host/progress.py"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports out in full"
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "gitian" and len(parts) > 1 and parts[1] in RANKS else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not path.read_text().strip(), "no code in __init__.py"
        return
    assert own in RANKS, f"{path} is in no room of the house"
    for module in imported(path):
        other = room(module)
        if other is None or other == own:
            continue
        lower = RANKS[other] < RANKS[own] or (other == "errors" and own == "names")
        assert lower, f"{path.relative_to(SOURCE)} (rank {RANKS[own]}) imports {module} (rank {RANKS[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_third_parties_stay_in_their_room(path: Path) -> None:
    where = str(path.relative_to(SOURCE))
    for module in imported(path):
        top = module.split(".")[0]
        if top in FENCES:
            assert where in FENCES[top], f"{where} imports {top}"
        if top == "click":
            assert where.startswith("cli/"), f"{where} imports click"


def test_modules_of_one_folder_do_not_import_each_other_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    names = {"gitian." + str(p.relative_to(SOURCE).with_suffix("")).replace("/", ".") for p in FILES}
    for path in FILES:
        name = "gitian." + str(path.relative_to(SOURCE).with_suffix("")).replace("/", ".")
        tree = ast.parse(path.read_text())
        eager: set[str] = set()
        for node in tree.body:  # late imports inside functions are allowed to close a circle
            if isinstance(node, ast.ImportFrom) and node.module:
                eager.add(node.module)
                eager |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                eager |= {alias.name for alias in node.names}
        graph[name] = {module for module in eager if module in names and module != name}

    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name in done:
            return
        for other in sorted(graph[name]):
            visit(other, (*above, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_rooms_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600, "split it along a real seam"
    assert path.name != "utils.py"
