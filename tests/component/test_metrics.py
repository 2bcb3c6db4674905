import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import sidecar
from sidecar.core.state import ElectionState
from sidecar.election.feed import Feed
from sidecar.election.ports import Meter
from sidecar.kube.label import RESULTS
from sidecar.outputs import pod_metrics
from sidecar.outputs.metrics import DESCRIPTIONS, Metrics, page
from sidecar.outputs.pod_metrics import PodMetrics
from tests.support.outputs import ELECTION, FOLLOWER, SetClock, leading

ROOT = Path(__file__).parent.parent.parent


class Rig:
    def __init__(self) -> None:
        self.clock = SetClock()
        self.feed: Feed[ElectionState] = Feed(FOLLOWER)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, ELECTION, self.feed, self.clock)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(
            f"leader_election_{name}", {"name": ELECTION} | labels
        )


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_master_status_and_lease_are_decided_at_the_scrape(rig: Rig) -> None:
    assert (rig.value("master_status"), rig.value("lease_remaining_seconds")) == (0.0, 0.0)
    rig.feed.publish(leading(rig.clock.now() + 4))
    rig.clock.advance(1)
    assert (rig.value("master_status"), rig.value("lease_remaining_seconds")) == (1.0, 3.0)
    rig.clock.advance(3)  # and nobody publishes anything
    assert (rig.value("master_status"), rig.value("lease_remaining_seconds")) == (0.0, 0.0)


def test_the_token_is_that_of_whoever_leads(rig: Rig) -> None:
    assert rig.value("term_token") == 8100
    rig.feed.publish(leading(rig.clock.now() + 4))
    assert rig.value("term_token") == 8123
    rig.feed.publish(replace(FOLLOWER, leader=None))
    assert rig.value("term_token") == 0


def test_candidates_are_counted(rig: Rig) -> None:
    assert rig.value("candidates") == 2
    rig.feed.publish(replace(FOLLOWER, candidates=()))
    assert rig.value("candidates") == 0


def test_what_the_election_reports_is_counted(rig: Rig) -> None:
    meter: Meter = rig.metrics
    assert rig.value("etcd_last_seen_timestamp_seconds") is None
    for result, seconds in (("proven", 0.002), ("proven", 0.3), ("unavailable", 60.0)):
        meter.renewed(result, seconds)
    meter.leader_changed()
    meter.leader_changed()
    meter.stepped_down("handover")
    meter.elected(0.25)
    meter.store_answered()
    assert rig.value("renewals_total", result="proven") == 2
    assert rig.value("renewals_total", result="unavailable") == 1
    assert rig.value("renewals_total", result="lost") == 0
    assert rig.value("renewal_duration_seconds_count") == 3
    assert rig.value("renewal_duration_seconds_sum") == pytest.approx(60.302)
    assert rig.value("renewal_duration_seconds_bucket", le="0.001") == 0
    assert rig.value("renewal_duration_seconds_bucket", le="0.0025") == 1
    assert rig.value("renewal_duration_seconds_bucket", le="0.5") == 2
    assert rig.value("renewal_duration_seconds_bucket", le="+Inf") == 3
    assert rig.value("campaign_duration_seconds_bucket", le="0.25") == 1  # a bound is inclusive
    assert rig.value("transitions_total") == 2
    assert rig.value("step_downs_total", reason="handover") == 1
    assert rig.value("step_downs_total", reason="key_gone") == 0
    assert rig.value("step_downs_total", reason="elected") is None
    assert rig.value("etcd_last_seen_timestamp_seconds") == rig.clock.wall()


def test_failed_outputs_are_counted_by_name(rig: Rig) -> None:
    rig.metrics.output_failed("status_file")
    rig.metrics.output_failed("status_file")
    rig.metrics.output_failed("label")
    assert rig.value("output_errors_total", output="status_file") == 2
    assert rig.value("output_errors_total", output="label") == 1


def test_exactly_the_documented_metrics_are_exposed(rig: Rig) -> None:
    rig.metrics.store_answered()
    body, content_type = rig.metrics.expose("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    parsed = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
    families: list[Metric] = list(parsed)
    exposed = {
        (family.name + ("_total" if family.type == "counter" else "")): family.type
        for family in families
    }
    assert exposed == {about.name: about.kind for about in DESCRIPTIONS}
    helps = {about.name.removesuffix("_total"): about.help for about in DESCRIPTIONS}
    for family in families:
        assert family.documentation == helps[family.name]
        assert not any(sample.name.endswith("_created") for sample in family.samples)
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        about = next(d for d in DESCRIPTIONS if d.name.removesuffix("_total") == family.name)
        assert labels <= set(about.labels)


def test_the_design_names_these_metrics_and_no_others() -> None:
    prefix = "leader_election_"
    assert {about.name.removeprefix(prefix) for about in DESCRIPTIONS} == {
        "master_status",
        "transitions_total",
        "term_token",
        "candidates",
        "lease_remaining_seconds",
        "renewals_total",
        "renewal_duration_seconds",
        "etcd_last_seen_timestamp_seconds",
        "step_downs_total",
        "campaign_duration_seconds",
        "output_errors_total",
        "leader_sidecar_build_info",
    }


def test_an_election_with_a_strange_name_is_escaped(rig: Rig) -> None:
    registry = CollectorRegistry()
    name = 'a"b\\c\nd'
    metrics = Metrics(registry, name, rig.feed, rig.clock)
    body, _ = metrics.expose("")
    assert b'leader_election_master_status{name="a\\"b\\\\c\\nd"} 0.0\n' in body


def test_build_info_tells_the_version(rig: Rig) -> None:
    body, _ = rig.metrics.expose("")
    assert f'version="{sidecar.__version__}"'.encode() in body


def test_the_registry_refuses_a_second_collector_of_the_same_names(rig: Rig) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(rig.registry, "another", rig.feed, rig.clock)


def test_the_documentation_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == page()
    command = [sys.executable, "-m", "sidecar.outputs.metrics"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == page()


def test_the_pods_metrics_are_there_with_every_result_from_the_start(rig: Rig) -> None:
    metrics = PodMetrics(rig.registry, ELECTION, RESULTS)
    assert set(RESULTS) <= set(re.findall(r"[a-z_]+", pod_metrics.PATCHES.help))
    for result in RESULTS:
        assert rig.value("pod_patches_total", result=result) == 0
    metrics.patched("patched", 0.02)
    metrics.told(0.3)
    assert rig.value("pod_patches_total", result="patched") == 1
    assert rig.value("pod_patch_duration_seconds_bucket", le="0.025") == 1
    assert rig.value("pod_label_delay_seconds_sum") == pytest.approx(0.3)
    for about in pod_metrics.DESCRIPTIONS:
        assert about.name in page()
