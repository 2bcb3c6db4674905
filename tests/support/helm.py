"""The chart as Helm renders it, for tests: each object as Python data, rendered once a choice."""

import functools
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.binaries import require_go_program
from tests.support.procs import inherited_environment

CHART = Path(__file__).resolve().parents[2] / "charts" / "leader-sidecar"
RELEASE, NAMESPACE, KUBERNETES = "demo", "shop", "1.34"
ELECTIONS = "leader-sidecar.io/v1alpha1"  # as after an installation of charts/leader-sidecar-crds
_TIMEOUT = 60.0

Object = dict[str, Any]


def run_helm(
    *arguments: str, version: str = "helm4", stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run Helm to its end, with no cluster to reach; skip the test where there is no Helm."""
    return subprocess.run(
        [str(require_go_program(version)), *arguments],
        capture_output=True,
        text=True,
        input=stdin or "",
        env={**inherited_environment(), "KUBECONFIG": "/dev/null", "HELM_NO_PLUGINS": "1"},
        timeout=_TIMEOUT,
        check=False,
    )


def _template(
    choices: Sequence[str], version: str, values: str, *, knows_elections: bool = True
) -> "subprocess.CompletedProcess[str]":
    known = ("--api-versions", ELECTIONS) if knows_elections else ()
    sets = [part for choice in choices for part in ("--set", choice)]
    # Helm 3, built without the flags of its releases, takes an unknown cluster for an old one.
    where = (RELEASE, str(CHART), "-n", NAMESPACE, "--kube-version", KUBERNETES, *known)
    return run_helm("template", *where, "-f", "-", *sets, version=version, stdin=values)


@functools.cache
def template(*choices: str, version: str = "helm4", values: str = "") -> str:
    """Return what Helm renders with `--set` choices, and values in YAML.

    Raises:
        AssertionError: with Helm's message, when it refuses.
    """
    done = _template(choices, version, values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*choices: str, version: str = "helm4", values: str = "") -> list[Object]:
    """Return every object that the chart makes."""
    text = template(*choices, version=version, values=values)
    return [found for found in yaml.safe_load_all(text) if found]


def refusal(
    *choices: str, version: str = "helm4", values: str = "", knows_elections: bool = True
) -> str:
    """Return why Helm refuses these choices, on a cluster that may not know Elections.

    Raises:
        AssertionError: it does not.
    """
    done = _template(choices, version, values, knows_elections=knows_elections)
    assert done.returncode != 0, f"taken: {choices}"
    return done.stderr


def one(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """Return the one object of a kind, and of a name where given."""
    found = [o for o in objects if o["kind"] == kind and name in {None, o["metadata"]["name"]}]
    assert len(found) == 1, [(o["kind"], o["metadata"]["name"]) for o in objects]
    return found[0]


def pod_of(thing: Object) -> Object | None:
    """Return the spec of the pods that an object makes, or None."""
    match thing["kind"]:
        case "Pod":
            spec = thing["spec"]
        case "Deployment" | "StatefulSet" | "Job":
            spec = thing["spec"]["template"]["spec"]
        case "CronJob":
            spec = thing["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        case _:
            return None
    assert isinstance(spec, dict)
    return spec


def containers(pod: Object) -> list[Object]:
    """Return all containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]
