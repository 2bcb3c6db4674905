"""Alerts fire when they shall, and alerts and dashboard ask for metrics that are there."""

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.choices import CHOICES, EVERYTHING_WATCHED
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.helm import CHART, Object, containers, one, pod_of, render

RULES = Path(__file__).with_name("alerts.yaml")
NAME = re.compile(r"\b(?:leader|etcd)_[a-z_]+\b")
# Tests of their own hold these pages to what sidecars and the operator serve.
METRICS = CHART.parents[1] / "docs" / "metrics.md"
OPERATOR = METRICS.with_name("operator.md")


def spec() -> Any:
    return one(render(*CHOICES["an operator"]), "PrometheusRule")["spec"]


def promtool(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return subprocess.run(
        [found, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    done = promtool("check", "rules", "rules.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_shall_and_not_before(tmp_path: Path) -> None:
    rules = spec()
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]  # their words are no part of this
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(RULES, tmp_path / "alerts.yaml")
    done = promtool("test", "rules", "alerts.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    tested = {
        case["alertname"]
        for group in yaml.safe_load(RULES.read_text())["tests"]
        for case in group["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert {rule["alert"] for rule in spec()["groups"][0]["rules"]} == tested


def served(described: str) -> set[str]:
    """The names of all series of the metrics that our documentation describes."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", described, re.MULTILINE)
    names = set()
    for name, kind in rows:
        parts = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        names |= {name + part for part in parts}
    return names


def shown() -> list[str]:
    """What the dashboard asks for."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    return [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]


def test_alerts_and_dashboard_ask_for_metrics_that_are_served() -> None:
    known = served(METRICS.read_text() + OPERATOR.read_text())
    asked = [*shown(), *(rule["expr"] for rule in spec()["groups"][0]["rules"])]
    names = {name for text in asked for name in NAME.findall(text) if name.startswith("leader_")}
    assert len(names) > 5
    assert names <= known


@pytest.mark.integration
def test_alerts_ask_for_metrics_that_etcd_serves() -> None:
    expressions = " ".join(rule["expr"] for rule in spec()["groups"][0]["rules"])
    asked = {name for name in NAME.findall(expressions) if name.startswith("etcd_")}
    assert len(asked) == 3
    require_etcd()
    with (
        EtcdCluster(EtcdOptions()) as etcd,
        urllib.request.urlopen(f"{etcd.endpoints[0]}/metrics", timeout=10) as reply,
    ):
        served = {line.split("{")[0].split(" ")[0] for line in reply.read().decode().splitlines()}
    assert asked <= served


def test_the_lease_is_nearly_out_by_the_time_that_one_may_act() -> None:
    def threshold(*choices: str) -> str:
        rules = one(render(*CHOICES["watched"], *choices), "PrometheusRule")["spec"]["groups"][0]
        (found,) = (
            r["expr"] for r in rules["rules"] if r["alert"] == "LeaderElectionLeaseNearlyOut"
        )
        return str(found.partition(" < ")[2].partition("\n")[0])

    assert threshold() == "0.3 * 5"
    assert threshold("sidecar.ttl=10", "sidecar.margin=2500ms") == "0.3 * 7.5"


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_monitors_scrape_each_program_by_a_port_that_it_has(kind: str) -> None:
    objects = render(*CHOICES["an operator"], "worker.enabled=true")
    scraped: list[tuple[str, str]] = []
    for thing in objects:
        if kind == "PodMonitor" and (pod := pod_of(thing)) is not None:
            labels = {**thing["metadata"]["labels"]}
            ports = [port for each in containers(pod) for port in each.get("ports", [])]
        elif kind == "ServiceMonitor" and thing["kind"] == "Service":
            labels, ports = thing["metadata"]["labels"], thing["spec"]["ports"]
        else:
            continue
        if matches(one(objects, kind)["spec"]["selector"], labels):
            found = {port["name"] for port in ports} & {"status", "metrics"}
            scraped += [(labels["app.kubernetes.io/component"], name) for name in found]
    assert sorted(scraped) == [
        ("etcd", "metrics"),
        ("master", "status"),
        ("operator", "metrics"),
        *([("worker", "metrics")] if kind == "PodMonitor" else []),
    ]


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a selector of expressions takes these labels."""
    return all(
        wanted["key"] in labels
        and (wanted["operator"] == "Exists" or labels[wanted["key"]] in wanted["values"])
        for wanted in selector["matchExpressions"]
    )


def labels_of_metrics() -> dict[str, set[str]]:
    """The labels of each metric, as our documentation describes them."""
    rows = re.findall(r"^\| `([a-z_]+)` \| \w+ \| (.*?) \|", METRICS.read_text(), re.MULTILINE)
    return {name: set(re.findall("[a-z]+", listed)) for name, listed in rows}


def test_the_dashboard_shows_all_that_the_forwarder_counts() -> None:
    counted = {name for name in labels_of_metrics() if name.startswith("leader_election_forward_")}
    assert len(counted) > 5
    asked = "\n".join(shown())
    assert [name for name in counted if name not in asked] == []


def test_the_dashboard_groups_by_labels_that_its_metrics_have() -> None:
    labels = labels_of_metrics()
    for query in shown():
        (metric,) = NAME.findall(query)
        known = labels[metric.removesuffix("_bucket")] | {"pod", "le"}
        for grouped in re.findall(r"\bby \(([a-z, ]+)\)", query):
            assert set(grouped.split(", ")) <= known, query


def test_the_dashboard_is_in_its_config_map() -> None:
    maps = [o for o in render(*EVERYTHING_WATCHED) if o["metadata"]["name"] == "demo-dashboard"]
    (found,) = maps
    board = json.loads(found["data"]["leader-sidecar.json"])
    assert board["title"] == "Leader election"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
