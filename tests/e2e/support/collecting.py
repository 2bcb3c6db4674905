"""What is looked at after a failure: logs, events and descriptions, in one folder."""

import json
import re
from pathlib import Path

from tests.e2e.support.engine import say
from tests.e2e.support.kubectl import Kubectl

FOLDER = Path(__file__).resolve().parents[3] / "build" / "e2e"


def collect(kubectl: Kubectl, namespace: str, name: str) -> None:
    """Write down all there is about a namespace; what cannot be had is left out."""
    folder = FOLDER / re.sub(r"[^a-zA-Z0-9_-]+", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    within = kubectl.within(namespace)
    for file, command in {
        "events.txt": ("get", "events", "--sort-by=.metadata.creationTimestamp"),
        "pods.txt": ("get", "pods", "-o", "wide", "--show-labels"),
        "objects.txt": ("get", "all,pvc,configmaps,endpointslices", "-o", "wide"),
        "describe.txt": ("describe", "pods"),
        "objects.yaml": ("get", "deployments,statefulsets,pods,services", "-o", "yaml"),
        "nodes.txt": ("describe", "nodes"),
    }.items():
        done = within.completed(*command)
        (folder / file).write_text(done.stdout + done.stderr)
    listed = within.completed("get", "pods", "-o", "json")
    for pod in json.loads(listed.stdout)["items"] if listed.returncode == 0 else []:
        spec = pod["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            for which, more in (("", ()), ("-before", ("--previous",))):
                where = (pod["metadata"]["name"], "-c", container["name"], *more)
                done = within.completed("logs", "--timestamps", *where)
                if done.returncode == 0:
                    file = f"{pod['metadata']['name']}-{container['name']}{which}.log"
                    (folder / file).write_text(done.stdout)
    say(f"logs, events and descriptions are in {folder}")
