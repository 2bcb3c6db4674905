"""The generated messages are those that rpc.proto describes."""

import subprocess
import sys
from pathlib import Path

import sidecar

ROOT = Path(sidecar.__file__).parent.parent
PROTO = "sidecar/etcd/rpc.proto"


def test_the_generated_messages_are_fresh(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
    command += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", str(ROOT / PROTO)]
    subprocess.run(command, check=True, cwd=ROOT)
    for name in ("rpc_pb2.py", "rpc_pb2.pyi"):
        fresh = (tmp_path / "sidecar/etcd" / name).read_text()
        assert (ROOT / "sidecar/etcd" / name).read_text() == fresh, "run make proto"
