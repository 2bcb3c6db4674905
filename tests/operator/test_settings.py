"""The operator's settings, and its command."""

from pathlib import Path

import pytest
import yaml

from sidecar.cli.main import run
from sidecar.errors import ConfigError
from sidecar.operator.commanding import Restraint
from sidecar.operator.settings import OperatorSettings, read
from sidecar.settings import StoreSettings
from tests.operator.test_injection import deployment
from tests.operator.things import document

STORE = StoreSettings("/operator", ("http://127.0.0.1:2379",))
GIVEN = {
    "id": "",
    "ttl": "15s",
    "namespaces": "",
    "http": ":8080",
    "webhook": ":9443",
    "webhook_service": "op",
    "mutating_webhooks": "m-1, m-2",
    "validating_webhooks": "",
    "certificate_secret": "",
    "certificates": "own",
    "sidecar_image": "sidecar:1",
    "sidecar_pull_policy": "Always",
}
POD = {"POD_NAME": "op-0", "POD_NAMESPACE": "ops"}


def settings(environment: dict[str, str] | None = None, **given: str) -> OperatorSettings:
    return read(STORE, {**GIVEN, **given}, POD if environment is None else environment)


def test_what_is_not_given_comes_from_the_pod() -> None:
    found = settings()
    assert (found.id, found.ttl, found.namespaces) == ("op-0", 15.0, ())
    assert found.webhooks is not None
    assert found.webhooks.secret == "op-tls"  # noqa: S105 - the name of one
    assert found.webhooks.names == ("op.ops.svc", "op.ops")
    assert found.webhooks.mutating == ("m-1", "m-2")
    assert found.webhooks.is_ours
    assert settings(webhook_service="").webhooks is None


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as told:
        settings({}, ttl="1s", namespaces="Shop,games", http="nowhere")
    said = "\n".join(told.value.problems)
    for named in ("--ttl", "--namespaces 'Shop'", "--http", "--id", "--webhook-service"):
        assert named in said
    assert len(told.value.problems) == 5


def test_inject_prints_manifests_with_the_sidecar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, thing in (("election", document()), ("web", deployment())):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(thing))
    files = [f"--filename={tmp_path / name}.yaml" for name in ("election", "web")]
    assert run(["inject", *files, "--image=sidecar:9"]) == 0
    _, web = yaml.safe_load_all(capsys.readouterr().out)
    (sidecar,) = (
        c for c in web["spec"]["template"]["spec"]["initContainers"] if c["name"] != "setup"
    )
    assert sidecar["image"] == "sidecar:9"
    assert run(["inject", files[1]]) == 2
    assert "Election master is not among the manifests" in capsys.readouterr().err
    assert run(["inject", f"--filename={tmp_path / 'missing.yaml'}"]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_command_that_failed_waits_longer_each_time_and_another_one_does_not() -> None:
    restraint = Restraint()
    assert restraint.left("a", 0.0) == 0.0
    restraint.failed("a", 0.0)
    assert restraint.left("a", 1.0) == 4.0
    assert restraint.left("b", 1.0) == 0.0
    restraint.failed("a", 5.0)
    assert restraint.left("a", 5.0) == 10.0
    for _ in range(10):
        restraint.failed("a", 100.0)
    assert restraint.left("a", 100.0) == 300.0
    restraint.failed("b", 100.0)
    assert restraint.left("b", 100.0) == 5.0
