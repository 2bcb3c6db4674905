"""cert-manager's controller and CA injector as plain processes beside an API server.

Its webhook is left out: it fills in and checks what the API server's schemas cannot, and its kinds
have one version each, so nothing has to be converted.
"""

import base64
import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from sidecar.cluster.api import ApiError
from tests.e2e.operator.api_server import ApiServer, Object
from tests.support.binaries import GO_MODULES, go_toolchain, require_go_program
from tests.support.procs import Child, wait_until

MODULE = "github.com/cert-manager/cert-manager"
ISSUED_WITHIN = 90.0
_COMMANDS = ("cert-manager-controller", "cert-manager-cainjector")


class CertManager:
    """A context manager; it looks after every namespace of the API server."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        program = require_go_program("cert-manager")
        kinds = _kinds()
        self._server.must_apply(*kinds)
        for kind in kinds:
            name = f"crd/{kind['metadata']['name']}"
            done = self._server.kubectl("wait", "--for=condition=Established", name)
            assert done.returncode == 0, done.stderr
        environment = {"KUBECONFIG": str(self._server.kubeconfig("admin"))}
        try:
            for command in _COMMANDS:
                (self._folder / command).symlink_to(program)
                child = Child(
                    [self._folder / command], name=command, folder=self._folder, env=environment
                )
                self._resources.enter_context(child)
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def wait_for(self, namespace: str, *names: str) -> None:
        """Wait until certificates have been issued and are not about to be issued again."""

        def missing() -> dict[str, list[Object]]:
            """Return those that are not issued, with what cert-manager says of them."""
            all_ = {name: self._conditions(namespace, name) for name in names}
            return {name: said for name, said in all_.items() if not _is_issued(said)}

        what = f"certificates of {namespace} are issued"
        try:
            wait_until(lambda: not missing(), what, ISSUED_WITHIN)
        except AssertionError:
            raise AssertionError(f"not within {ISSUED_WITHIN} s: {what}: {missing()}") from None

    def renew(self, namespace: str, name: str) -> dict[str, bytes]:
        """Have a certificate issued anew, as `cmctl renew` does, and return the Secret's data."""
        before = self.secret(namespace, name)
        path = _certificate_path(namespace, name)
        triggered = {
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "by a test",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        kept = [c for c in self._conditions(namespace, name) if c["type"] != "Issuing"]
        patch = {"status": {"conditions": [*kept, triggered]}}
        self._server.admin.merge(f"{path}/status", patch)
        self.wait_for(namespace, name)
        after = self.secret(namespace, name)
        assert after["tls.crt"] != before["tls.crt"]
        return after

    def secret(self, namespace: str, certificate: str) -> dict[str, bytes]:
        """Return the data of the Secret that a certificate is kept in."""
        spec = self._server.admin.get(_certificate_path(namespace, certificate))["spec"]
        path = f"/api/v1/namespaces/{namespace}/secrets/{spec['secretName']}"
        data = self._server.admin.get(path)["data"]
        return {name: base64.b64decode(text) for name, text in data.items()}

    def _conditions(self, namespace: str, name: str) -> list[Object]:
        try:
            found = self._server.admin.get(_certificate_path(namespace, name))
        except ApiError:
            return []
        return list((found.get("status") or {}).get("conditions") or [])


def _is_issued(conditions: list[Object]) -> bool:
    found = {c["type"]: c["status"] for c in conditions}
    return found.get("Ready") == "True" and found.get("Issuing", "False") == "False"


def _certificate_path(namespace: str, name: str) -> str:
    return f"/apis/cert-manager.io/v1/namespaces/{namespace}/certificates/{name}"


def _kinds() -> list[dict[str, Any]]:
    """Return the definitions of cert-manager's kinds, out of its module."""
    listed = subprocess.run(
        [go_toolchain(), "mod", "download", "-json", MODULE],
        cwd=GO_MODULES / "cert-manager",
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(json.loads(listed.stdout)["Dir"]) / "deploy" / "crds"
    return [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
