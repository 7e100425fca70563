"""Who may import whom: the direction in which the rooms know each other."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("app", "worker", "models", "cli")
LIGHT = ("pixels", "image_errors", "image_files", "masks", "dicom")  # numpy and Pillow alone at import
OF_MODELS_FOR_APP = {"models", "models.pixels", "models.image_errors"}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that the file names in an import, wherever it stands: `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: rooms are imported by their full names"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(room: str, forbidden: set[str]) -> list[str]:
    found = []
    for path in sources(room):
        for module in imports(path):
            if any(module == name or module.startswith(f"{name}.") for name in forbidden):
                found.append(f"{path.relative_to(ROOT)} imports {module}")
    return found


def test_app_knows_neither_torch_nor_the_workers_nor_the_commands() -> None:
    assert not offences("app", {"torch", "diffusers", "transformers", "safetensors", "worker", "cli"})


def test_app_uses_of_models_only_what_reads_image_files() -> None:
    modules = {f"models.{path.stem}" for path in sources("models")} - OF_MODELS_FOR_APP
    assert not offences("app", modules)


def test_models_know_no_web_no_database_no_queue_and_no_other_room() -> None:
    strangers = {"app", "worker", "cli", "fastapi", "starlette", "celery", "kombu", "redis", "sqlalchemy"}
    assert not offences("models", strangers | {"obstore", "pydantic_settings"})


def test_workers_answer_no_http() -> None:
    assert not offences("worker", {"cli", "fastapi", "starlette", "uvicorn", "app.main", "app.routes"})


@pytest.mark.parametrize("room", ["app", "models", "worker"])
def test_the_environment_is_read_by_the_settings_alone(room: str) -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in sources(room)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    ]
    assert not readers


def loaded_after(code: str) -> set[str]:
    """The top-level modules of a fresh process that ran `code`."""
    program = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_api_process_loads_no_torch() -> None:
    assert not loaded_after("import app.main") & {"torch", "diffusers", "scipy", "pydicom", "worker", "cli"}


def test_reading_image_files_loads_no_torch() -> None:
    light = ", ".join(f"models.{module}" for module in LIGHT)
    heavy = {"torch", "diffusers", "scipy", "skimage", "pydicom", "fastapi", "sqlalchemy"}
    assert not loaded_after(f"import {light}") & heavy


def test_commands_that_only_talk_to_a_service_load_on_windows() -> None:
    missing = ("fcntl", "resource", "termios")
    loaded_after(f"sys.modules.update(dict.fromkeys({missing}))\nimport cli.main, cli.client, models.training.images")


def test_no_file_is_longer_than_400_lines() -> None:
    long = [path for room in (*ROOMS, "tests") for path in sources(room) if len(path.read_text().splitlines()) > 400]
    assert not long
