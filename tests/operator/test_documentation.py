"""What docs/operator.md shows is what is there."""

from pathlib import Path

import yaml

import sidecar
from sidecar.operator import metrics, moves
from sidecar.operator.spec import read_election
from sidecar.operator.status import Seen, status_of
from tests.operator.things import NOW, election, queue

PAGE = (Path(sidecar.__file__).parent.parent / "docs" / "operator.md").read_text()


def test_the_table_of_metrics_is_fresh() -> None:
    marker = "<!-- made by python -m sidecar.operator.metrics -->\n"
    assert PAGE.split(marker)[1] == metrics.page(), "run python -m sidecar.operator.metrics"


def test_the_example_is_an_election() -> None:
    text = PAGE.split("```yaml\n")[1].split("```")[0]
    found = read_election(yaml.safe_load(text))
    assert found.longest_term == 86400.0
    assert found.service is not None
    assert found.store.client_certificate


def test_every_reason_of_a_move_is_told() -> None:
    reasons = (moves.COMMAND, moves.CORDON, moves.EVICTION, moves.PREFERRED, moves.LONGEST_TERM)
    for reason in reasons:
        assert f"| `{reason}` |" in PAGE


def test_every_condition_is_told() -> None:
    of = election(service={"ports": [{"name": "http", "port": 80}]})
    for condition in status_of(Seen(of, queue("m-0")), NOW)["conditions"]:
        assert f"\n| `{condition['type']}` " in PAGE
