"""Generate the Python code of `proto/` into `sdk/`, or check that what is committed is current.

    python .ci/generate.py            write it
    python .ci/generate.py --check    compare with what is there; exit 1 and name the differences

The generator is the pinned grpcio-tools, run in this process, with the two plugins of the pinned mypy-protobuf for
typed stubs. Nothing else is needed, no network in particular, and the same pins give the same text everywhere.
"""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("autoglm/v1")
DESCRIPTORS = "descriptors.binpb"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", DESCRIPTORS)
FIX = "python .ci/generate.py"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; exit 1 if anything differs")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the tree that holds proto/ and sdk/ (default: this one)"
    )
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory(prefix="autoglm-generate-") as folder:
        fresh = Path(folder)
        generate(options.root / "proto", fresh)
        differences = compare(fresh / PACKAGE, options.root / "sdk" / PACKAGE)

        if options.check:
            for difference in differences.values():
                print(difference)

            if differences:
                print(f"The generated code is not current. To fix: {FIX}")

            return 1 if differences else 0

        install(fresh / PACKAGE, options.root / "sdk" / PACKAGE, sorted(differences))

    return 0


def generate(protos: Path, out: Path) -> None:
    """Run the generator over every file of the package; gRPC code for `*_service.proto` alone."""
    files = sorted(path.relative_to(protos).as_posix() for path in (protos / PACKAGE).glob("*.proto"))
    services = [file for file in files if file.endswith("_service.proto")]
    run(protos, [f"--python_out={out}", f"--mypy_out=quiet:{out}"], files)
    run(protos, [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"], services)
    # The descriptors in the Python code have no comments; the server's reflection shows them from this file.
    run(protos, [f"--descriptor_set_out={out / PACKAGE / DESCRIPTORS}", "--include_source_info"], files)


def run(protos: Path, outputs: list[str], files: list[str]) -> None:
    """Call protoc in this process, or end this process saying that it failed."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    plugins = [f"--plugin={name}={plugin(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]

    if code := protoc.main(["protoc", f"-I{protos}", f"-I{well_known}", *plugins, *outputs, *files]):
        sys.exit(f"protoc ended with {code}.")


def plugin(name: str) -> str:
    """Find a plugin of this interpreter's own environment, whatever PATH says."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))

    if found is None:
        sys.exit(f"{name} is not installed beside {sys.executable}. To fix: pip install -e '.[dev]'")

    return found


def compare(fresh: Path, present: Path) -> dict[str, str]:
    """Compare whole texts; the answer says for each file that differs, is missing or is too many, how."""
    wanted, found = texts(fresh), texts(present)
    differences = {}

    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            differences[name] = f"missing: {name}"
        elif name not in wanted:
            differences[name] = f"not generated any more: {name}"
        elif wanted[name] != found[name] and name == DESCRIPTORS:
            differences[name] = f"differs: {name}"
        elif wanted[name] != found[name]:
            lines = difflib.unified_diff(
                found[name].splitlines(),
                wanted[name].splitlines(),
                f"{name} (present)",
                f"{name} (fresh)",
                lineterm="",
                n=1,
            )
            differences[name] = "\n".join([f"differs: {name}", *list(lines)[:20]])

    return differences


def texts(folder: Path) -> dict[str, str]:
    """Read the generated files of a folder, as they are: bytes are compared, line ends too."""
    return {path.name: path.read_bytes().decode("latin-1") for pattern in GENERATED for path in folder.glob(pattern)}


def install(fresh: Path, present: Path, names: list[str]) -> None:
    """Make the present folder hold exactly the fresh files; what is written by hand there stays."""
    present.mkdir(parents=True, exist_ok=True)

    for name in names:
        if (fresh / name).exists():
            shutil.copyfile(fresh / name, present / name)
            print(f"wrote {present / name}")
        else:
            (present / name).unlink()
            print(f"removed {present / name}")


if __name__ == "__main__":
    sys.exit(main())
