"""The house keeps its shape: what may import what, and what starting costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evalkit

ROOT = Path(evalkit.__file__).parent
ADAPTERS = ("workspaces", "agents", "benchmarks", "images", "store")
FOUNDATION = ("domain", "errors")


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ("evalkit", *path.relative_to(ROOT).with_suffix("").parts)
        if "bundled" not in parts:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(path: Path) -> set[str]:
    """The modules of evalkit that a file imports: when it is imported itself, later, or for type checkers only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(node.module)
    return {name for name in found if name in MODULES and name != "evalkit"}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) == "domain"))
def test_the_domain_imports_nothing_outside(module: str) -> None:
    assert {part_of(name) for name in imports_of(MODULES[module])} <= {"domain"}


@pytest.mark.parametrize("module", ["engine", "attempt", "admission", "observing", "logs"])
def test_the_engine_imports_no_adapter_and_no_command(module: str) -> None:
    imported = {part_of(name) for name in imports_of(MODULES[f"evalkit.{module}"])}
    assert not imported & {*ADAPTERS, "commands", "cli", "models"}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters_import_no_engine_no_command_and_not_each_other(adapter: str) -> None:
    for module, path in MODULES.items():
        if part_of(module) == adapter:
            imported = {part_of(name) for name in imports_of(path)}
            assert not imported & {"engine", "attempt", "cli", "commands"}, module
            assert not imported & ({*ADAPTERS} - {adapter}), module


def test_only_the_command_line_imports_commands() -> None:
    for module, path in MODULES.items():
        if part_of(module) not in ("commands", "cli"):
            assert "commands" not in {part_of(name) for name in imports_of(path)}, module


def test_there_are_no_cycles() -> None:
    graph = {module: imports_of(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in graph[module] - {module}:
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


# What comes with Typer and what a start needs of the standard library is fine; none of these is.
HEAVY = (
    *("docker", "requests", "urllib3", "httpx", "httpcore", "aiohttp", "http.client", "pydantic", "pydantic_core"),
    *("datasets", "pyarrow", "pandas", "numpy", "swebench", "huggingface_hub", "anyio", "asyncio", "trio", "msgspec"),
    *("tomllib", "ssl", "multiprocessing", "concurrent.futures", "sqlite3", "importlib.metadata"),
)


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ()], ids=lambda given: " ".join(given) or "import")
def test_starting_imports_little(arguments: tuple[str, ...]) -> None:
    program = "import evalkit" if not arguments else "from evalkit.__main__ import main; main()"
    report = "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))"
    finished = subprocess.run(
        [sys.executable, "-c", f"{report}; {program}", *arguments], capture_output=True, check=True, text=True
    )
    imported = set(finished.stderr.split())
    assert {name for name in HEAVY if name in imported} == set()
    ours = {name for name in imported if name.startswith("evalkit.")}
    assert ours <= {
        "evalkit.__main__",
        "evalkit.cli.app",
        "evalkit.console",
        "evalkit.console.formatting",
        "evalkit.system.descriptors",
        "evalkit.errors",
        "evalkit.cli.help_screen",
        "evalkit.masking",
        "evalkit.stderr",
        "evalkit.stdout",
    }


def test_importing_has_no_side_effects() -> None:
    program = """
import logging, signal, sys, threading
def state():
    signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)]
    root = logging.getLogger()
    return root.handlers[:], root.level, sys.stdout, sys.stderr, sys.excepthook, threading.Thread.__init__, signals
before = state()
import evalkit, evalkit.cli, evalkit.engine, evalkit.commands.infer, evalkit.commands.resume, evalkit.testing
assert before == state()
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True)
