"""The layers of the package: an import points only downward."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ldmseg_d2"
# Folder or module of the package -> what it may import from the package.
TENSORS = {"ids", "losses", "diffusion"}
METHOD = TENSORS | {"modeling", "panoptic", "inpainting", "config", "meta_arch"}
READERS = {"data", "visualization"}
ALLOWED = {
    "config": set(),
    "ids": set(),
    "losses": {"ids"},
    "diffusion": {"ids"},
    "modeling": TENSORS,
    "panoptic": {"ids"},
    "inpainting": {"ids", "diffusion", "panoptic"},
    "meta_arch": METHOD - {"meta_arch"},
    "data": {"ids"},
    "visualization": {"ids"},
    # What LDMSeg is compared with; nothing of the method imports it.
    "baselines": METHOD | READERS,
    "model_zoo": {"config", "modeling", "meta_arch"},
    "evaluation": METHOD | READERS,
    "engine": METHOD | READERS | {"baselines", "evaluation", "model_zoo"},
    "experiments": METHOD | READERS | {"baselines", "evaluation", "engine", "model_zoo"},
    # The page; like tools/, nothing imports it.
    "app": METHOD | READERS | {"evaluation", "engine", "model_zoo"},
    "__init__": {"config", "baselines", "data", "meta_arch", "model_zoo"},
}
# Functions on tensors need no Detectron2 and hold no nn.Module.
TENSOR_LAYERS = ("ids", "diffusion", "losses", "panoptic", "inpainting")


def imports(path: Path) -> set[str]:
    """Absolute dotted names that a file imports."""
    package = ("ldmseg_d2", *path.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    layer = layer_of(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "tools":
            pytest.fail(f"{path.name} imports {name}: the package must not know its tools")
        if parts[0] != "ldmseg_d2" or len(parts) < 2 or parts[1] == layer:
            continue
        assert parts[1] in ALLOWED[layer], f"{layer}/ may not import {name}"
    if layer in TENSOR_LAYERS:
        assert not [n for n in imports(path) if n.startswith("detectron2")]


@pytest.mark.parametrize("layer", TENSOR_LAYERS)
def test_tensor_layers_define_no_module(layer):
    for path in (PACKAGE / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert "Module" not in ast.unparse(node), f"{path.name}: {node.name}"


def test_only_meta_arch_and_the_layers_above_read_the_config():
    """Networks and functions take explicit arguments (STYLE: from_config is the only reader)."""
    for layer in (*TENSOR_LAYERS, "modeling", "visualization"):
        for path in (PACKAGE / layer).rglob("*.py"):
            names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
            assert "cfg" not in names, f"{path.name} reads cfg"


def test_nothing_imports_the_compiled_detectron2():
    for path in FILES:
        assert not [n for n in imports(path) if n.startswith("detectron2._C")], path


def test_every_file_has_a_name_of_its_own():
    """A name says what is in the file, once in the whole package."""
    names = [path.name for path in FILES if path.name != "__init__.py"]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
