"""The images of a cluster: its nodes, and what is tested on them; pulled where a registry answers.

Where none answers everything is built: a Debian tree by debootstrap, programs from Go modules. What
is built is kept in the engine's own store, named by the hash of all that went into it.
"""

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.support.engine import Engine, UnfitMachineError, engine, run, say
from tests.support.binaries import (
    GO_MODULES,
    KUBERNETES_VERSION,
    BinaryMissingError,
    etcd_binaries,
    go_program,
    go_toolchain,
    locked,
)

NODE = Path(__file__).resolve().parents[1] / "node"
REPOSITORY = Path(__file__).resolve().parents[3]
SUITE = "bookworm"  # its containerd 1.6 takes machines with version 1 of cgroups, too
_STOCK_NODE = f"docker.io/kindest/node:v{KUBERNETES_VERSION}"
_STOCK_PYTHON = "docker.io/library/python:3.13-slim"
_REGISTRY = "registry-1.docker.io"
_ANSWERS_WITHIN = 5.0  # seconds
_PULLED_WITHIN = 900.0
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_OURS = "localhost/leader-sidecar-e2e"
_COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubeadm",
    "kubectl",
    "kubelet",
)


@dataclass(frozen=True, slots=True)
class Images:
    """Names of images in the engine's store."""

    node: str
    node_is_stock: bool
    sidecar: str
    crawler: str
    etcd: str


def images() -> Images:
    """Find or build all images.

    Raises:
        UnfitMachineError: something is missing that could not be built.
        RuntimeError: a build failed.
    """
    podman = engine()
    stock = _registry_answers()
    with locked(podman.folder / "images.lock"):
        try:
            python = _pulled(podman, _STOCK_PYTHON) if stock else None
            node = _pulled(podman, _STOCK_NODE) if stock else None
            base = python or _built(podman, "python")
            etcd = f"{_OURS}/etcd:test"
            podman.run("tag", _built(podman, "etcd"), etcd)
            names = {target: _product(podman, base, target) for target in ("sidecar", "crawler")}
            return Images(node or _built(podman, "node"), node is not None, etcd=etcd, **names)
        except BinaryMissingError as missing:
            raise UnfitMachineError(str(missing)) from missing


def operator_image() -> str:
    """Build the image of the operator, which few tests ask for, and return its name.

    Raises:
        UnfitMachineError: something is missing that could not be built.
        RuntimeError: the build failed.
    """
    podman = engine()
    with locked(podman.folder / "images.lock"):
        try:
            base = _pulled(podman, _STOCK_PYTHON) if _registry_answers() else None
            return _product(podman, base or _built(podman, "python"), "operator")
        except BinaryMissingError as missing:
            raise UnfitMachineError(str(missing)) from missing


def _registry_answers() -> bool:
    """Return whether images can be had: decided in seconds, as many a machine drops packets."""
    connection = http.client.HTTPSConnection(_REGISTRY, timeout=_ANSWERS_WITHIN)
    try:
        connection.request("GET", "/v2/")
        return "docker-distribution-api-version" in connection.getresponse().headers
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _pulled(podman: Engine, name: str) -> str | None:
    if podman.has_image(name):
        return name
    say(f"pulls {name}")
    try:
        podman.run("pull", "--quiet", name, timeout=_PULLED_WITHIN)
    except (RuntimeError, subprocess.TimeoutExpired) as failed:
        say(f"it cannot be pulled, so it is built: {failed}")
        return None
    return name


def _product(podman: Engine, base: str, target: str) -> str:
    """Build one of our own images; layers that did not change are taken from the build before."""
    name = f"{_OURS}/{target}:test"
    say(f"builds the image {target}")
    build = _build_command(REPOSITORY / "Dockerfile", target, name)
    mounts = _as_pip_is_here(podman)
    podman.run(*build, *mounts, "--build-arg", f"BASE_IMAGE={base}", str(REPOSITORY))
    return name


def _built(podman: Engine, target: str) -> str:
    """Return a stage of `tests/e2e/node/Dockerfile`, building it when the store lacks it."""
    name = f"{_OURS}/{target}:{_fingerprint()}"
    if podman.has_image(name):
        return name
    with tempfile.TemporaryDirectory(prefix="building-", dir=podman.folder) as scratch:
        context = Path(scratch)
        _gather(context, with_kubernetes=target == "node")
        if target == "node":
            _save_images_of_kubernetes(podman, context)
        _stage(podman, context, target, name)
    _forget_others(podman, target, name)
    return name


def _forget_others(podman: Engine, target: str, name: str) -> None:
    """Remove what was built before from other sources, unless a cluster that was kept runs it."""
    reference = f"--filter=reference={_OURS}/{target}"
    listed = podman.run("images", "--format", "{{.Repository}}:{{.Tag}}", reference).split()
    for other in set(listed) - {name, f"{_OURS}/{target}:test"}:
        with contextlib.suppress(RuntimeError):
            podman.run("rmi", other)


def _stage(podman: Engine, context: Path, target: str, *names: str) -> None:
    say(f"builds the image {target}")
    command = _build_command(NODE / "Dockerfile", target, *names)
    arguments = (f"DEBIAN={_debian(podman)}", f"VERSION={KUBERNETES_VERSION}")
    given = [part for argument in arguments for part in ("--build-arg", argument)]
    podman.run(*command, *given, str(context))


def _build_command(file: Path, target: str, *names: str) -> list[str]:
    tags = [part for name in names for part in ("--tag", name)]
    base = ["build", "--quiet", "--layers", "--network=host", "--format=docker"]
    return [*base, *tags, "--file", str(file), "--target", target]


def _as_pip_is_here(podman: Engine) -> list[str]:
    """Let pip in a build install from where it does on this machine, and trust whom it trusts."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    lines, mounts = ["[global]"], []
    for line in asked.stdout.splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2]
        if name in {"index-url", "extra-index-url", "trusted-host"}:
            lines.append(f"{name} = {value.strip(chr(39))}")
    if _CERTIFICATES.exists():
        lines.append("cert = /run/certificates.pem")
        mounts = ["--volume", f"{_CERTIFICATES}:/run/certificates.pem:ro"]
    settings = podman.folder / "pip.conf"
    settings.write_text("\n".join(lines) + "\n")
    return ["--volume", f"{settings}:/etc/pip.conf:ro", *mounts]


def _gather(context: Path, *, with_kubernetes: bool) -> None:
    """Put into the context of a build what its stages copy."""
    programs = context / "programs"
    programs.mkdir()
    found = etcd_binaries()
    for program in (found.etcd, found.etcdctl, found.etcdutl):
        shutil.copy(program, programs)
    shutil.copytree(NODE / "files", context / "files")
    if not with_kubernetes:
        return
    say("builds Kubernetes, CoreDNS and kind from Go modules, unless they are there")
    for name in ("kubernetes", "pause", "coredns"):
        shutil.copy(go_program(name), programs)
    for name in _COMMANDS:
        (programs / name).symlink_to("kubernetes")
    shutil.copytree(_kind_files(), context / "kind-files")


def _kind_files() -> Path:
    """Return the files that kind puts into its own node images, out of the module of kind."""
    listed = subprocess.run(
        [go_toolchain(), "mod", "download", "-json", "sigs.k8s.io/kind"],
        cwd=GO_MODULES / "kind",
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(json.loads(listed.stdout)["Dir"]) / "images" / "base" / "files"


def _save_images_of_kubernetes(podman: Engine, context: Path) -> None:
    """Make the images that kubeadm asks for, under the names that it uses, and save them all."""
    kubeadm = context / "programs" / "kubeadm"
    listed = run(
        (kubeadm, "config", "images", "list", f"--kubernetes-version=v{KUBERNETES_VERSION}"),
        podman.environment,
    ).split()
    names: dict[str, list[str]] = {}
    for image in listed:
        names.setdefault(_stage_of(image), []).append(image)
    names["pause"] = [*names["pause"], "registry.k8s.io/pause:3.10"]  # in kind's files
    for stage, given in names.items():
        _stage(podman, context, stage, *dict.fromkeys(given))
    every = list(dict.fromkeys(name for given in names.values() for name in given))
    archive = context / "images.tar"
    podman.run("save", "--quiet", "--multi-image-archive", "--output", archive, *every)


def _stage_of(image: str) -> str:
    name = image.rpartition("/")[2].partition(":")[0]
    return name if name in {"coredns", "etcd", "kube-proxy", "pause"} else "control-plane"


def _debian(podman: Engine) -> str:
    """Return an image with a small Debian."""
    name = f"{_OURS}/debian:{SUITE}"
    if podman.has_image(name):
        return name
    if shutil.which("debootstrap") is None:
        raise UnfitMachineError("no registry answers, and debootstrap is missing: install it")
    say("makes a small Debian with debootstrap")
    with tempfile.TemporaryDirectory(prefix="debian-", dir=podman.folder) as scratch:
        tree, archive = Path(scratch) / "tree", Path(scratch) / "tree.tar"
        run(("debootstrap", "--variant=minbase", SUITE, tree), podman.environment)
        shutil.rmtree(tree / "var" / "cache" / "apt" / "archives")
        run(("tar", "--create", "--file", archive, "--directory", tree, "."), podman.environment)
        podman.run("import", "--quiet", archive, name)
    return name


def _fingerprint() -> str:
    """Name what is built from `node/` by all that goes into it."""
    digest = hashlib.sha256(f"{SUITE}\0{KUBERNETES_VERSION}".encode())
    sources = [path for path in NODE.rglob("*") if path.is_file()]
    for module in ("coredns", "etcd", "kind", "kubernetes"):
        folder = GO_MODULES / module
        sources += [path for path in folder.rglob("*") if path.suffix in {".go", ".mod", ".sum"}]
    for path in sorted(sources):
        digest.update(f"\0{path.relative_to(REPOSITORY)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def main() -> int:
    """Find or build everything ahead of the tests, which have no time for a compiler."""
    if os.environ.get("E2E_KUBECONFIG"):
        return 0
    try:
        say(f"{images()}")
    except (RuntimeError, subprocess.TimeoutExpired) as unfit:
        say(f"no cluster can be had here: {unfit}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
