"""What is kept of pods and nodes."""

from typing import Any

import pytest

from sidecar.operator.facts import read_node


@pytest.mark.parametrize(
    ("spec", "is_closed"),
    [
        ({}, False),
        ({"unschedulable": True}, True),
        ({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}, True),
        ({"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]}, True),
        ({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}, False),
        # Nodes that are reserved; who runs there bears the taint and is not about to go.
        ({"taints": [{"key": "dedicated", "value": "etcd", "effect": "NoExecute"}]}, False),
        ({"taints": [{"key": "dedicated", "value": "etcd", "effect": "NoSchedule"}]}, False),
    ],
)
def test_a_node_is_closed_when_its_pods_are_about_to_go(
    spec: dict[str, Any], is_closed: bool
) -> None:
    assert read_node({"metadata": {"name": "a"}, "spec": spec}).is_closed is is_closed
