"""The rules of the house: which part may know which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = {"suite": {"suite"}, "modalities": {"suite", "modalities"}, "demos": {"suite", "modalities", "demos"}}
SOURCES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]
OURS = {"suite", "modalities", "demos", "models", "tests"}


def imports(path, *, top=False):
    """The dotted names a file imports; with `top`, only those it imports when it is itself imported."""

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if top and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if top and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            yield child
            yield from walk(child)

    found = set()
    for node in walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path, **options):
    return {name.split(".")[0] for name in imports(path, **options)}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_arrows_point_one_way(path):
    part = path.relative_to(ROOT).parts[0]
    assert packages(path) & OURS <= PARTS[part]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_only_two_files_import_diffusers_and_only_inside_functions(path):
    if path in (ROOT / "suite" / "compat.py", ROOT / "suite" / "published.py"):
        assert "diffusers" not in packages(path, top=True)
    elif path != ROOT / "suite" / "bench.py":  # which measures us against it
        assert "diffusers" not in packages(path)


@pytest.mark.parametrize("path", sorted((ROOT / "suite" / "nn").glob("*.py")), ids=lambda path: path.name)
def test_networks_know_torch_and_each_other(path):
    assert packages(path) <= {"torch", "suite", *sys.stdlib_module_names}
    assert all(name.startswith("suite.nn.") for name in imports(path) if name.startswith("suite"))


def test_samplers_know_torch_and_paths():
    path = ROOT / "suite" / "samplers.py"
    assert packages(path) <= {"torch", "suite", *sys.stdlib_module_names}
    assert {name for name in imports(path) if name.startswith("suite")} <= {
        "suite.paths.Alpha",
        "suite.paths.Path",
    }


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_no_medium_is_named_in_the_core_s_imports_and_nothing_is_unpickled(path):
    text = path.read_text("utf-8")
    text = text.replace("fork_rng():\n        torch.manual_seed(", "")  # a seed that ends with its block
    for call in (
        "torch.manual_seed(",
        "trust_remote_code=True",
        "import pickle",
        "pickle.load",
        "torch.load(",
        "eval(",
        "exec(",
    ):
        assert f" {call}" not in text and f"={call}" not in text, call


def test_models_are_data_only():
    kinds = {path.suffix for path in (ROOT / "models").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors", ".md", ".toml", ".png"}


def test_help_and_imports_load_neither_torch_nor_gradio():
    code = (
        "import sys, suite, modalities, modalities.audio, modalities.image, suite.cli\n"
        "for argv in (['--help'], ['image', '--help'], ['audio', '--help'], ['--version']):\n"
        "    try: suite.cli.main(argv)\n"
        "    except SystemExit as done: assert not done.code\n"
        "assert not {'torch', 'gradio', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    import suite

    for name in suite.__all__:
        assert getattr(suite, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        suite.nothing  # noqa: B018
