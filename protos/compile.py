"""Compiles protos/ into extauthz/_proto (`make proto`), or tells whether that is up to date (`make check`)."""

import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

SOURCES = Path(__file__).parent
TARGET = SOURCES.parent / "extauthz" / "_proto"
PACKAGE = "extauthz._proto"
HEADER = '"""Compiled from protos/ by protos/compile.py; change the .proto file and run `make proto`."""\n'

# protoc writes absolute imports of the proto packages; ours live under PACKAGE, so that they never meet
# another copy of Envoy's API on the import path.
_IMPORT = re.compile(r"^(from|import) (envoy|extauthz\.diagnostics)\b", re.MULTILINE)


def compile_into(target: Path) -> None:
    """Write the modules, their stubs and the package files below `target`."""
    sources = sorted(path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.proto"))
    includes = [SOURCES, Path(str(files("grpc_tools") / "_proto"))]
    googleapis = Path(status_pb2.__file__).parents[2]
    status = protoc.main(
        [
            "protoc",
            *(f"-I{path}" for path in [*includes, googleapis]),
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *sources,
        ]
    )
    if status:
        sys.exit(f"protoc failed with status {status}")
    for path in [*target.rglob("*.py"), *target.rglob("*.pyi")]:
        text = _IMPORT.sub(rf"\1 {PACKAGE}.\2", path.read_text())
        path.write_text(text)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text(HEADER)
    for path in target.rglob("*_pb2_grpc.py"):
        if "Servicer" not in path.read_text():
            path.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative path, byte code left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".py", ".pyi"}
    }


def main() -> None:
    """Compile, or with --check compare."""
    with tempfile.TemporaryDirectory() as scratch:
        compile_into(Path(scratch))
        if sys.argv[1:] == ["--check"]:
            if contents(Path(scratch)) != contents(TARGET):
                sys.exit("extauthz/_proto is out of date: run `make proto` and commit the result")
            print(f"{TARGET.name} is up to date")
            return
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(scratch, TARGET)


if __name__ == "__main__":
    main()
