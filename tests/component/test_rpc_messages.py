"""The generated messages are those that the .proto files describe."""

import subprocess
import sys
from pathlib import Path

import pytest

import sidecar

ROOT = Path(sidecar.__file__).parent.parent


@pytest.mark.parametrize("name", ["rpc", "admin"])
def test_the_generated_messages_are_fresh(name: str, tmp_path: Path) -> None:
    proto = f"sidecar/etcd/{name}.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
    command += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(ROOT / proto)]
    subprocess.run(command, check=True, cwd=ROOT)
    for made in (f"{name}_pb2.py", f"{name}_pb2.pyi"):
        fresh = (tmp_path / "sidecar/etcd" / made).read_text()
        assert (ROOT / "sidecar/etcd" / made).read_text() == fresh, "run make proto"
