"""The benches run, leave nothing behind, and count rightly; what they find is not judged here."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import figures, footprint, handover, kubernetes, machine, processes, requests
from benchmarks.processes import BenchError, Speaker, first_event
from benchmarks.table import HEAD, Row, as_markdown, as_text
from benchmarks.usage import load, memory, processor
from tests.support.binaries import require_etcd
from tests.support.procs import inherited_environment

REPOSITORY = Path(__file__).resolve().parents[2]
ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"event": line.strip(), "t": {"monotonic_ns": 5}}), flush=True)
"""


def echo(folder: Path, name: str = "echo") -> Speaker:
    return Speaker([sys.executable, "-c", ECHO], name=name, folder=folder)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0, 1), (0.25, 1), (0.5, 2), (0.51, 3), (0.99, 4), (1, 4)]
)
def test_a_quantile_is_the_value_of_the_nearest_rank(share: float, wanted: float) -> None:
    assert figures.quantile([4, 2, 1, 3], share) == wanted


def test_nothing_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="of 0 values"):
        figures.quantile([], 0.5)


def test_a_summary_tells_the_least_and_the_worst() -> None:
    summary = figures.summarize([float(value) for value in range(1, 201)])
    assert summary == figures.Summary(200, 1, 100, 180, 198, 200)


def test_a_ratio_compares_round_by_round() -> None:
    # The second round was twice as slow for both: pooled, ours would look slower than it is.
    compared = figures.ratio([[1.0], [2.0], [4.0]], [[2.0], [4.0], [4.0]], 0.5)
    assert compared == figures.Ratio(0.5, 0.5, 1.0)
    assert str(compared) == "0.50 (0.50 to 1.00)"


def test_a_ratio_without_a_peer_is_none() -> None:
    assert figures.ratio([[1.0]], [], 0.5) is None


def test_everybody_goes_first_in_turn() -> None:
    assert figures.turns(("a", "b", "c"), 4) == [
        ("a", "b", "c"),
        ("b", "c", "a"),
        ("c", "a", "b"),
        ("a", "b", "c"),
    ]


def test_the_table_has_a_line_for_each_row_and_says_no_loudly() -> None:
    rows = [Row("one", "1 ms", reached=True), Row("two", "2 ms", "1 ms", reached=False)]
    lines = as_text(rows).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == list(HEAD)
    assert lines[2].endswith("yes")
    assert lines[3].endswith("NO")


def test_markdown_says_where_it_was_measured() -> None:
    text = as_markdown([Row("a|b", "1")], {"cores": "2", "go": ""}, "make bench")
    assert r"| a\|b | 1 |" in text
    assert "Measured by `make bench`. cores: 2." in text
    assert "go" not in text


def test_a_new_leader_of_which_kubernetes_knows_late_is_not_reached() -> None:
    slow = {"patched": 0.04, "labelled": 0.06, "answered": 1.2}
    quick = {"patched": 0.01, "labelled": 0.02, "answered": 0.4}
    patched, label, service = kubernetes.rows_of([slow, quick, slow])
    assert (patched.reached, label.reached, service.reached) == (True, False, True)
    assert label.ours == "60 / 60 / 60 ms"


def test_a_slower_handover_than_the_peers_is_not_reached() -> None:
    rows = handover.rows({"ours": [[2.0, 2.0]], "go": [[1.0, 4.0]], "limit": [[0.5]]})
    reached = {row.what: row.reached for row in rows}
    assert reached["planned handover, p50"] is False
    assert reached["planned handover, p99"] is True
    assert rows[-1].ratio == "4.00 (4.00 to 4.00)"


def test_the_worst_follower_counts() -> None:
    small = {"rss_mb": 50.0, "pss_mb": 40.0, "cpu_percent": 0.4}
    found = {"sidecar leader": small, "sidecar follower 1": small}
    found["sidecar follower 2"] = small | {"rss_mb": 57.0}
    reached = {row.what: row.reached for row in footprint.rows(found)}
    assert reached["memory at rest, leader: RSS"] is True
    assert reached["memory at rest, follower: RSS"] is False
    assert reached["processor at rest, follower"] is True


def test_what_rest_would_have_cost_is_subtracted() -> None:
    made = Counter({"LeaseKeepAlive": 12, "Txn": 13, "Range": 3})
    rest = {"LeaseKeepAlive": 5.0, "Txn": 5.0, "Range": 1.0}
    # In 2 s: 10 proofs and 2 reads at rest; so 2 proofs, a transaction and a read are more.
    assert requests.excess(made, 2.0, rest) == requests.Excess(other=2.0, proofs=4.0)


def test_processes_get_even_shares_of_the_candidates() -> None:
    assert requests.shares(999, 4) == [250, 250, 250, 249]


def test_events_of_other_names_wait_for_their_turn(tmp_path: Path) -> None:
    with echo(tmp_path) as speaker:
        for line in ("first", "second", "third"):
            speaker.send(line)
        assert speaker.event("second")["event"] == "second"
        assert speaker.event("first")["event"] == "first"
        assert speaker.event("third")["event"] == "third"


def test_whoever_tells_first_is_returned(tmp_path: Path) -> None:
    with echo(tmp_path, "a") as a, echo(tmp_path, "b") as b:
        b.send("won")
        assert first_event([a, b], "won")[0] is b


def test_a_program_that_ends_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('broken')"]
    speaker = Speaker(command, name="ends", folder=tmp_path)
    with speaker, pytest.raises(BenchError, match="broken"):
        speaker.event("any")


def test_silence_is_an_error_in_time(tmp_path: Path) -> None:
    with echo(tmp_path) as speaker, pytest.raises(BenchError, match="no 'any' of echo"):
        speaker.event("any", within=0.01)


def test_an_error_that_is_told_is_an_error(tmp_path: Path) -> None:
    with echo(tmp_path) as speaker:
        speaker.send("error")
        with pytest.raises(BenchError, match="says"):
            speaker.event("any")


def test_a_program_that_does_not_go_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_GO_AWAY", 0.01)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Speaker(command, name="stays", folder=tmp_path) as speaker:
        proc = Path(f"/proc/{speaker.pid}")
        assert proc.exists()
    assert not proc.exists()


def test_usage_is_of_the_process_that_is_named(tmp_path: Path) -> None:
    with echo(tmp_path) as speaker:
        speaker.send("started")
        speaker.event("started")
        before, held = processor(speaker.pid), memory(speaker.pid)
        for _ in range(200):
            speaker.send("again")
            speaker.event("again")
        assert processor(speaker.pid) > before > 0
        assert before < processor(os.getpid()) / 2  # of a test run that has imported all this
        assert 1 < held.pss <= held.rss < memory(os.getpid()).rss
        assert load([speaker.pid], 0.05).share(speaker.pid) < 100


def test_the_machine_is_described() -> None:
    found = machine.facts(require_etcd().etcd, None)
    assert found["etcd"] == "3.6.16"
    assert found["cpu"]
    assert found["kernel"]


@pytest.mark.integration
@pytest.mark.timeout(600)  # bounds for a slow machine; the first use may have to build
def test_a_quick_run_measures_everything_and_leaves_nothing_behind(tmp_path: Path) -> None:
    require_etcd()
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(result)]
    for name in ("handover", "sidecars", "footprint", "check"):
        command += ["--only", name]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**inherited_environment(), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "planned handover, p50" in done.stdout
    document = json.loads(result.read_text())
    assert document["benches"]["sidecars"]["restarts"]["trials"] == 2
    assert all(outcome for outcome in document["benches"].values())
    assert result.with_suffix(".md").read_text().startswith("| what | ours |")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.md"]
    assert heirs_of(f"TMPDIR={tmp_path}") == []


def heirs_of(variable: str) -> list[str]:
    """Return the command lines of all processes that have inherited this from the run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended, or is somebody else's
        if variable.encode() in environment:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found
