"""The forwarder's metrics: what it counts is what is exposed, and nothing else."""

from prometheus_client import CollectorRegistry

from sidecar.forward.meter import ForwardMeter, Refusal
from sidecar.outputs.forward_metrics import DESCRIPTIONS, ForwardMetrics
from sidecar.outputs.metrics import page
from tests.support.outputs import ELECTION


def test_what_the_forwarder_counts_is_exposed() -> None:
    registry = CollectorRegistry()
    meter = ForwardMeter()
    metrics = ForwardMetrics(registry, ELECTION, meter)
    meter.open, meter.accepted, meter.outlived = 3, 7, 2
    meter.to_leader.bytes, meter.to_client.bytes = 10, 20
    meter.refuse(Refusal.LOOP)
    metrics.waited(0.3)

    def value(name: str, **labels: str) -> float | None:
        labels = {"name": ELECTION} | labels
        return registry.get_sample_value(f"leader_election_forward_{name}", labels)

    assert (value("connections_open"), value("connections_total")) == (3, 7)
    assert value("outlived_total") == 2
    assert value("bytes_total", direction="to_leader") == 10
    assert value("bytes_total", direction="to_client") == 20
    assert value("refused_total", reason="loop") == 1
    assert value("refused_total", reason="no_leader") == 0
    assert (value("wait_seconds_count"), value("wait_seconds_sum")) == (1, 0.3)
    assert value("wait_seconds_bucket", le="0.25") == 0
    assert value("wait_seconds_bucket", le="0.5") == 1


def test_exactly_the_documented_ones_are_exposed() -> None:
    registry = CollectorRegistry()
    ForwardMetrics(registry, ELECTION, ForwardMeter())
    exposed = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry.collect()
    }
    assert exposed == {about.name for about in DESCRIPTIONS}
    assert all(f"`{about.name}`" in page() for about in DESCRIPTIONS)


def test_every_reason_of_a_refusal_is_explained() -> None:
    about = next(d for d in DESCRIPTIONS if d.name.endswith("refused_total"))
    assert all(str(reason) in about.help for reason in Refusal)
