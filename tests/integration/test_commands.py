"""The commands against sidecars that run: what they do, what they say, how they exit."""

import http.client
import json
import re
import time
from datetime import datetime
from typing import Any

import pytest

from sidecar.core.codec import Action, Request, encode_request
from tests.integration.support import (
    LEADER,
    LONG,
    OTHER,
    PROGRAM,
    USAGE,
    Sidecar,
    Team,
    one_line,
    run_command,
)
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, Child, wait_until

pytestmark = pytest.mark.integration

TTL = 20  # nothing here waits for a lease to end


def three(team: Team) -> tuple[Sidecar, Sidecar, Sidecar]:
    a, b, c = team.start("a", "b", "c", ttl=TTL)
    return a, b, c


def test_resign_has_the_next_one_lead_and_the_old_one_queue_again(team: Team) -> None:
    a, b, _ = three(team)
    token = a.token or 0
    done = team.command("resign")
    assert done.returncode == 0, done.stderr
    assert b.leadership.wait("leader", timeout=LONG).term
    assert done.stdout == f"b leads, token {b.token}\n"
    assert (b.token or 0) > token
    team.wait_for_queue("b", "c", "a")
    assert a.document()["reason"] in ("resigned", "waiting")


def test_resign_of_the_only_candidate_has_it_lead_again_with_a_larger_token(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token or 0
    done = team.command("resign")
    assert done.returncode == 0, done.stderr
    assert team.wait_for_leader(after=token) is a
    assert done.stdout == f"a leads again, token {a.token}: nobody else stood\n"


def test_handover_to_a_named_candidate_moves_those_before_it(team: Team) -> None:
    a, b, c = three(team)
    token = a.token or 0
    done = team.command("handover", "--to=c")
    assert done.returncode == 0, done.stderr
    c.wait_for("leader")
    assert done.stdout == f"c leads, token {c.token}\n"
    wait_until(lambda: set(c.document()["candidates"]) == {"a", "b", "c"}, "all queue", LONG)
    assert c.document()["candidates"][0] == "c"
    assert [name for name, _ in team.terms()] == ["a", "c"]
    assert (c.token or 0) > token
    assert not b.leadership.is_leader()
    for sidecar in (a, b, c):
        sidecar.wait_for_log("watch leader change old=a new=c .*reason=handover")


@pytest.mark.parametrize(
    ("to", "why"), [("nobody", "no candidate 'nobody' stands"), ("a", "'a' leads already")]
)
def test_a_handover_that_cannot_be_is_refused_with_the_reason(
    team: Team, to: str, why: str
) -> None:
    a, _ = team.start("a", "b", ttl=TTL)
    token = a.token
    done = team.command("handover", f"--to={to}")
    assert done.returncode == OTHER
    assert why in one_line(done.stderr)
    assert a.token == token


def test_a_handover_to_nobody_else_is_refused(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token
    done = team.command("handover")
    assert done.returncode == OTHER
    assert "nobody else stands" in one_line(done.stderr)
    assert a.token == token


@pytest.mark.parametrize("name", ["resign", "handover"])
def test_a_command_to_an_election_without_a_leader_says_so(team: Team, name: str) -> None:
    done = team.command(name)
    assert done.returncode == OTHER
    assert "nobody stands" in one_line(done.stderr)


def test_nobody_leads_in_a_pause_and_somebody_after_it(team: Team) -> None:
    a, b, _ = three(team)
    token = a.token or 0
    done = team.command("pause")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "paused until `leader-sidecar resume`; then b leads\n"
    a.wait_for("follower")
    for sidecar in (a, b):
        sidecar.wait_until(lambda s: s.get("paused") is True, "it knows of the pause")
    assert team.leaders() == []
    assert a.says_everywhere("follower")
    assert a.document()["reason"] == "paused"
    again = team.command("pause", "--for=60m")
    assert (again.returncode, again.stdout.partition(",")[0]) == (OTHER, "it is paused already")
    assert "paused" in team.command("status").stdout
    resumed = team.command("resume")
    assert resumed.returncode == 0
    leader = team.wait_for_leader(after=token)
    assert leader is b
    assert resumed.stdout == f"resumed; b leads, token {b.token}\n"
    assert leader.document().get("paused") is None
    done = team.command("resume")
    assert (done.returncode, done.stdout) == (
        OTHER,
        f"it is not paused; b leads, token {b.token}\n",
    )


def test_a_pause_with_an_end_ends_by_itself(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token or 0
    began = time.time()
    done = team.command("pause", "--for=2s")
    ended = time.time()
    assert done.returncode == 0
    told = re.fullmatch(
        r"paused until (\S+); then a queues again and leads: nobody else stands\n", done.stdout
    )
    assert told, done.stdout
    assert began + 2 <= datetime.fromisoformat(told[1]).timestamp() + 0.001 <= ended + 2.001
    a.wait_for("follower")
    assert team.wait_for_leader(after=token) is a


def test_a_pause_where_nobody_stands_says_so(team: Team) -> None:
    assert team.command("pause").stdout.endswith("; nobody stands\n")
    assert team.command("resume").stdout == "resumed; nobody stands yet\n"


def test_a_sidecar_that_starts_in_a_pause_leads_after_it(team: Team) -> None:
    assert team.command("pause").returncode == 0
    a = team.add("a", ttl=TTL).start()
    a.wait_until(lambda s: s.get("paused") is True, "it knows of the pause")
    assert a.says_everywhere("follower")
    assert team.command("resume").returncode == 0
    a.wait_for("leader")


def test_a_resign_in_a_pause_is_refused_at_once(team: Team) -> None:
    team.start("a", "b", ttl=TTL)
    assert team.command("pause").returncode == 0
    done = team.command("resign")
    assert done.returncode == OTHER
    assert "pause" in one_line(done.stderr)


def test_check_agrees_whomever_it_asks(team: Team) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    for sidecar, code in ((a, LEADER), (b, OTHER)):
        assert sidecar.check() == code
        assert run_command("check", "--url", sidecar.url).returncode == code
        assert team.command("check", f"--id={sidecar.name}").returncode == code
    a.terminate()
    assert a.check() == OTHER
    done = run_command("check", "--url", a.url)
    assert done.returncode == OTHER
    assert "no sidecar answers" in one_line(done.stderr)


def documents(team: Team, sidecar: Sidecar) -> list[dict[str, Any]]:
    """Return what `status --json` says of all three sources."""
    asked = [
        run_command("status", "--json", "--status-dir", sidecar.status_dir),
        run_command("status", "--json", "--url", sidecar.url),
        team.command("status", "--json"),
    ]
    for done in asked:
        assert done.returncode == 0, done.stderr
    return [json.loads(done.stdout) for done in asked]


def test_status_tells_the_same_leader_whomever_it_asks(team: Team) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    wanted = {
        "id": "a",
        "address": "a.example:9090",
        "token": a.token,
        "key": a.document()["key"],
    }
    assert [document["leader"] for document in documents(team, b)] == [wanted] * 3
    assert [document["candidates"] for document in documents(team, b)] == [["a", "b"]] * 3
    text = run_command("status", "--status-dir", b.status_dir).stdout
    assert f"a at a.example:9090, token {a.token}" in text
    assert "follower" in text


def test_a_watched_status_tells_that_its_sidecar_was_killed(team: Team) -> None:
    _, b = team.start("a", "b", ttl=TTL)
    watcher = team.child([*PROGRAM, "status", "--watch", f"--status-dir={b.status_dir}"], "watch")
    watcher.wait_for_line("link to etcd +connected", within=LONG)
    b.kill()
    watcher.wait_for_line("link to etcd +lost", within=LONG)
    text = run_command("status", "--status-dir", b.status_dir).stdout
    assert "nobody, or not known" in text
    b.start()
    watcher.wait_for_line("link to etcd +connected", skip=1, within=LONG)
    watcher.terminate()


def told(observer: Child) -> list[str | None]:
    leaders = [json.loads(line)["leader"] for line in observer.lines()]
    return [leader and leader["id"] for leader in leaders]


def test_observe_prints_each_leader_whomever_it_asks(team: Team) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    token = a.token or 0
    sources = {
        "etcd": team.store,
        "url": (f"--url={b.url}",),
        "directory": (f"--status-dir={b.status_dir}",),
    }
    observers = [
        team.child([*PROGRAM, "observe", *source], f"observe-{name}")
        for name, source in sources.items()
    ]
    for observer in observers:
        observer.wait_for_line('"id": "a"', within=LONG)
    assert team.command("handover").returncode == 0
    assert team.wait_for_leader(after=token) is b
    for observer in observers:
        observer.wait_for_line('"id": "b"', within=LONG)
        seen = [name for name in told(observer) if name is not None]
        assert seen == ["a", "b"]
        observer.terminate()


def test_the_event_stream_tells_a_handover_at_once(team: Team) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    stream = http.client.HTTPConnection(LOOPBACK, int(b.url.rpartition(":")[2]), timeout=LONG)
    stream.request("GET", "/events")
    events = stream.getresponse()
    assert events.getheader("content-type", "").startswith("text/event-stream")

    def next_document() -> dict[str, Any]:
        while not (line := events.readline()).startswith(b"data:"):
            assert line
        document: dict[str, Any] = json.loads(line[5:])
        return document

    assert next_document()["role"] == "follower"
    assert team.command("handover").returncode == 0
    while (document := next_document())["role"] != "leader":
        continue
    assert document["token"] == b.token
    assert a.says_everywhere("follower")
    stream.close()


def test_a_retired_sidecar_never_stands_again_and_goes_on_answering(
    team: Team, one_member: EtcdCluster
) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    token = a.token or 0
    done = run_command("retire", "--wait", "--status-dir", a.status_dir)
    assert (done.returncode, done.stderr) == (0, "")
    key = one_member.etcdctl("get", f"{team.election}/", "--prefix", "--keys-only")
    assert len(key.stdout.split()) == 1, "its key is given up when the command returns"
    assert team.wait_for_leader(after=token) is b
    team.wait_for_queue("b")
    assert b.terminate() == 0  # nobody else is there, and still it does not stand
    assert a.child.running
    a.wait_until(lambda s: s["candidates"] == [], "nobody stands")
    assert a.says_everywhere("follower")
    assert a.document()["reason"] == "retired"
    assert run_command("retire", "--status-dir", a.status_dir).returncode == 0
    assert a.terminate() == 0


def test_program_first_keeps_the_key_until_sigterm(team: Team, one_member: EtcdCluster) -> None:
    a, b = team.start("a", "b", ttl=TTL, options=["--step-down-order=program-first"])
    token = a.token or 0
    assert run_command("retire", "--wait", "--status-dir", a.status_dir).returncode == 0
    assert a.says_everywhere("follower")
    assert len(candidate_keys(one_member, team)) == 2
    assert not b.leadership.is_leader()
    assert a.terminate() == 0
    assert team.wait_for_leader(after=token) is b


def candidate_keys(cluster: EtcdCluster, team: Team) -> list[str]:
    found = cluster.etcdctl("get", f"{team.election}/", "--prefix", "--keys-only")
    return found.stdout.split()


def test_retire_without_a_sidecar_says_so(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    a.kill()
    done = run_command("retire", "--status-dir", a.status_dir)
    assert done.returncode == OTHER
    assert str(a.status_dir) in one_line(done.stderr)


def lease(cluster: EtcdCluster) -> str:
    """Return the id of a lease of a minute, as etcdctl writes it."""
    return cluster.etcdctl("lease", "grant", "60").stdout.split()[1]


def test_a_request_for_a_term_that_is_over_is_not_obeyed(
    team: Team, one_member: EtcdCluster
) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    old = a.token or 0
    assert team.command("resign").returncode == 0
    b.wait_for("leader")
    token = b.token or 0
    team.wait_for_queue("b", "a")
    value = encode_request(Request(Action.RESIGN, old)).decode()
    key = f"{team.election}.control/request/stale"
    one_member.etcdctl("put", key, value, f"--lease={lease(one_member)}")
    b.wait_for_proof(TTL)
    assert (b.token, team.terms()[-1]) == (token, ("b", token))
    assert team.command("resign").returncode == 0, "a later one is heard"
    assert team.wait_for_leader(after=token) is a


def test_a_request_whose_asker_is_gone_is_not_obeyed(team: Team, one_member: EtcdCluster) -> None:
    a, b = team.start("a", "b", ttl=TTL)
    token = a.token
    a.child.pause()
    asker = team.child([*PROGRAM, "resign", *team.store], "asker")
    request = f"{team.election}.control/request/"

    def asked() -> list[dict[str, Any]]:
        got = one_member.etcdctl("get", request, "--prefix", "--write-out=json").stdout
        found: list[dict[str, Any]] = json.loads(got).get("kvs", [])
        return found

    (found,) = wait_until(asked, "the request", LONG)
    asker.kill()
    one_member.etcdctl("lease", "revoke", f"{found['lease']:x}")
    a.child.resume()
    a.wait_for_proof(TTL)
    assert a.token == token
    assert team.terms() == [("a", token)]
    assert team.command("handover").returncode == 0
    assert team.wait_for_leader(after=token or 0) is b


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (["--margin=30s"], "--margin"),
        (["--margin=1ms"], "--margin"),
        (["--id=two\nlines"], "--id"),
        (["--endpoints=http://127.0.0.1"], "--endpoints"),
        (["--election=/a/../b"], "--election"),
        (["--election="], "--election"),
        (["--election=/a/"], "--election"),
        (["--cert=/nowhere.crt", "--key=/nowhere.key"], "--cert"),
        (["--user=u"], "--password-file"),
        (["--nonsense=1"], "--nonsense"),
    ],
)
def test_a_setting_that_cannot_work_ends_the_start_with_its_name(
    team: Team, options: list[str], flag: str
) -> None:
    a = team.add("a", *options).start()
    assert a.child.wait(LONG) == USAGE
    assert a.child.text() == ""
    assert any(flag in line for line in a.log)
    assert all(line.startswith("leader-sidecar") for line in a.log)


def test_a_ttl_that_etcd_raises_is_said_and_used_as_granted(team: Team) -> None:
    a = team.add("a", ttl=1).start()
    assert "2" in a.wait_for_log("--ttl")
    a.wait_for_proof(2)


def test_an_election_inside_another_one_in_use_is_refused(team: Team) -> None:
    team.start("a", ttl=TTL)
    for name in (f"{team.election}/inner", team.election.rpartition("/")[0]):
        b = team.add("b", f"--election={name}", ttl=TTL).start()
        assert b.child.wait(LONG) == USAGE
        assert "--election" in b.log[-1]
