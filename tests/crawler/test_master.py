"""Whole Masters with their sidecars on a real etcd: what callers and people see."""

import asyncio
import contextlib
import http.client
import json
import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from crawler import crawler_pb2 as pb
from crawler import keys, web
from crawler.records import Deletion
from crawler.web import Terms
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.crawler.crew import ELECTION, Crew, Master, fields
from tests.crawler.load import Caller
from tests.integration.support import LONG, run_command
from tests.support.procs import LOOPBACK, free_port, wait_until

pytestmark = pytest.mark.integration


def test_the_three_steps_of_the_source(crew: Crew) -> None:
    (second,) = crew.start(2)
    assert len(crew.get(ELECTION + "/")) == 1
    (third,) = crew.start(3)
    assert len(crew.get(ELECTION + "/")) == 2
    for master in (second, third):
        master.master.wait_for_line(
            rf"watch leader change .*new={re.escape(second.id)}", stream="err"
        )
        master.master.wait_for_line(rf"leader={re.escape(second.id)}", stream="err")
    assert second.sidecar.terminate(LONG) == 0
    assert second.master.terminate(LONG) == 0
    third.master.wait_for_line("master change to leader", stream="err")
    wait_until(lambda: len(crew.get(ELECTION + "/")) == 1, "one key is left", LONG)
    crew.start(4)
    assert second.id not in crew.get(keys.REGISTRY)


def test_a_follower_passes_calls_on(crew: Crew) -> None:
    leader, follower = crew.start(2, 3)
    crew.work("a")
    answer = follower.add("news")
    assert answer.status_code == 200, answer.text
    assert fields(answer)["id"] == "a"
    assert answer.headers["crawler-served-by"] == leader.id
    got = fields(follower.request("GET", "/resources/news"))
    assert got["spec"]["urls"] == ["http://news.example/"]
    assert got["node"]["id"] == "a"
    assert int(got["token"]) == leader.leadership.token
    assert crew.is_settled(["news"])


def test_what_is_added_twice_is_added_once(crew: Crew) -> None:
    (master,) = crew.start(2)
    crew.work("a")
    first = master.add("news", request_id="r-1")
    before = crew.get(keys.ROOT)
    for again in (master.add("news", request_id="r-1"), master.add("news", request_id="r-2")):
        assert (again.status_code, again.text) == (200, first.text)
    assert crew.get(keys.ROOT) == before
    other = master.add("news", depth=2)
    assert (other.status_code, fields(other)["field"]) == (409, "name")
    assert fields(other)["code"] == "ALREADY_EXISTS"


def test_what_is_deleted_is_gone_with_its_assignment_and_results(crew: Crew) -> None:
    leader, follower = crew.start(2, 3)
    crew.work("a")
    follower.add("news", request_id="r-1")
    crew.cluster.etcdctl("put", keys.results("news").decode(), "{}")
    assert follower.request("DELETE", "/resources/news").status_code == 200
    mark = keys.deleted("news").decode()
    assert set(crew.get(keys.ROOT)) == {mark}
    assert Deletion.decode(crew.get(mark)[mark][0]) == Deletion(
        "news", "r-1", leader.leadership.token or 0
    )
    for method in ("DELETE", "GET"):
        again = leader.request(method, "/resources/news")
        assert (again.status_code, fields(again)["field"]) == (404, "name")


def test_resources_are_listed_in_pages_by_name(crew: Crew) -> None:
    (master,) = crew.start(2)
    for name in ("c", "a", "b"):
        master.add(name)
    first = fields(master.request("GET", "/resources", params={"page_size": 2}))
    assert [one["spec"]["name"] for one in first["resources"]] == ["a", "b"]
    token = first["next_page_token"]
    rest = fields(master.request("GET", "/resources", params={"page_token": token}))
    assert [one["spec"]["name"] for one in rest["resources"]] == ["c"]
    assert rest["next_page_token"] == ""


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": "a/b"}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"urls": []}, "urls"),
    ({"urls": ["ftp://a.example/"]}, "urls"),
    ({"urls": ["http:///path"]}, "urls"),
    ({"urls": ["http://a.example/" + "x" * 9000]}, "urls"),
    ({"urls": ["http://a.example:99999/"]}, "urls"),
    ({"depth": 6}, "depth"),
    ({"rate": -1}, "rate"),
    ({"rate": "Infinity"}, "rate"),
    ({"request_id": "a b"}, "request_id"),
    ({"request_id": "x" * 65}, "request_id"),
]


async def test_bad_input_is_refused_with_the_name_of_the_field(crew: Crew) -> None:
    _, follower = crew.start(2, 3)
    async with Caller(follower.target) as caller:
        for wrong, field in BAD:
            document = {"name": "n", "urls": ["http://a.example/"], **wrong}
            answer = follower.request("POST", "/resources", json=document)
            assert (answer.status_code, fields(answer)["field"]) == (400, field), answer.text
            if "rate" in wrong:
                document["rate"] = float(wrong["rate"])
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.call("AddResource", pb.ResourceSpec(**document))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (caught.value.details() or "").startswith(f"{field}: ")
    for body in (b"", b"[]", b"{", b'{"name": 1}', b'{"nam": "n"}', b"x" * 70_000):
        answer = follower.request("POST", "/resources", content=body)
        assert (answer.status_code, fields(answer)["code"]) == (400, "INVALID_ARGUMENT"), body[:9]
    assert crew.get(keys.RESOURCES) == {}


async def test_garbage_over_grpc_is_an_invalid_argument(crew: Crew) -> None:
    (master,) = crew.start(2)
    async with grpc.aio.insecure_channel(master.target) as channel:
        method: Any = channel.unary_unary
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method("/crawler.CrawlerMaster/AddResource")(b"\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_a_leader_calls_wait_until_their_deadline(crew: Crew) -> None:
    (master,) = crew.start(2)
    store = (f"--election={ELECTION}", f"--endpoints={','.join(crew.cluster.endpoints)}")
    run_command("pause", *store).check_returncode()
    try:
        wait_until(lambda: not master.leadership.is_leader(), "it has stepped down", LONG)
        patience = {"Request-Timeout": "500ms"}
        answer = master.request("GET", "/nodes", headers=patience)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
        assert answer.elapsed.total_seconds() >= 0.5
        async with Caller(master.target) as caller:
            told = await caller.add("early", timeout=1)
        assert told.code is grpc.StatusCode.UNAVAILABLE, told
    finally:
        run_command("resume", *store).check_returncode()
    async with Caller(master.target) as caller:
        assert (await caller.add("late", timeout=LONG)).is_done
    assert set(crew.resources()) == {"late"}


async def test_a_master_that_ends_answers_what_waits_for_a_leader(crew: Crew) -> None:
    (master,) = crew.start(2)
    store = (f"--election={ELECTION}", f"--endpoints={','.join(crew.cluster.endpoints)}")
    run_command("pause", *store).check_returncode()
    try:
        wait_until(lambda: not master.leadership.is_leader(), "it has stepped down", LONG)
        async with Caller(master.target) as caller, asyncio.TaskGroup() as group:
            waiting = group.create_task(caller.add("n", timeout=LONG))
            while "crawler_calls_under_way 1" not in await asyncio.to_thread(metrics, master):
                pass
            ending = group.create_task(asyncio.to_thread(master.master.terminate, LONG))
            told = await waiting
            assert await ending == 0
    finally:
        run_command("resume", *store).check_returncode()
    assert told.code is grpc.StatusCode.UNAVAILABLE, told


def test_connections_of_a_term_that_is_over_are_sent_away(crew: Crew) -> None:
    leader, other = crew.start(2, 3)
    for master in (leader, other):
        wait_until(partial(keeps, master, leader.id), "nobody is sent away")
    with connect(other) as follower, connect(leader) as old:
        for connection in (old, follower):
            assert get_nodes(connection) == (200, None, leader.id)
        run_command(
            "handover", f"--election={ELECTION}", f"--endpoints={','.join(crew.cluster.endpoints)}"
        ).check_returncode()
        assert crew.leader(leader.leadership.token or 0) is other
        assert get_nodes(old) == (200, "close", other.id)
        assert get_nodes(follower) == (200, "close", other.id)
    wait_until(partial(keeps, leader, other.id), "a later connection is kept")


def keeps(master: Master, leader_id: str) -> bool:
    """Whether a new connection may stay; right after a change of the leader it may not."""
    with connect(master) as new:
        return get_nodes(new) == (200, None, leader_id)


async def test_a_connection_opened_right_after_a_change_counts_as_older_but_at_the_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Who leads is all that is asked of it.
    leadership: Any = SimpleNamespace(leader=None, is_leader=lambda: False)
    terms = Terms(leadership)
    leadership.leader = SimpleNamespace(token=7)
    assert terms.of_new_connection() == 0
    leadership.is_leader = lambda: True
    assert terms.of_new_connection() == terms.now() == 7
    leadership.is_leader = lambda: False
    monkeypatch.setattr(web, "_HEARD_OF_WITHIN", -1.0)
    assert terms.of_new_connection() == 7


async def test_health_and_reflection_answer(crew: Crew) -> None:
    (master,) = crew.start(2)
    async with grpc.aio.insecure_channel(master.target) as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        reply = await check(health_pb2.HealthCheckRequest(service="crawler.CrawlerMaster"))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = stub.ServerReflectionInfo()
        await asked.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await asked.read()
        names = {service.name for service in listed.list_services_response.service}
        assert "crawler.CrawlerMaster" in names
        await asked.done_writing()


def test_the_openapi_document_describes_every_path(crew: Crew) -> None:
    (master,) = crew.start(2)
    document = fields(master.request("GET", "/openapi.json"))
    operations = [
        one["operationId"] for path in document["paths"].values() for one in path.values()
    ]
    service = pb.DESCRIPTOR.services_by_name["CrawlerMaster"]
    assert sorted(operations) == sorted(method.name for method in service.methods)
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named == set(document["components"]["schemas"])
    assert "openapi.json" in master.request("GET", "/").text
    assert "crawler_calls_total" in master.request("GET", "/metrics").text


def test_it_is_ready_once_there_was_a_leader(crew: Crew) -> None:
    store = (f"--election={ELECTION}", f"--endpoints={','.join(crew.cluster.endpoints)}")
    run_command("pause", *store).check_returncode()
    master = Master(2, ",".join(crew.cluster.endpoints), crew.folder)
    crew.masters.append(master)
    master.start()
    try:
        master.master.wait_for_line("master started", stream="err", within=LONG)
        assert master.request("GET", "/healthz").status_code == 200
        assert master.request("GET", "/readyz").status_code == 503
    finally:
        run_command("resume", *store).check_returncode()
    master.wait_ready()


def test_wrong_options_are_told_in_a_line_each() -> None:
    ended = run_master("--id=a b", "--http=x", "--grpc=:1:2", "--ttl=1s", "--status-dir=/dev/null")
    assert ended.returncode == 2
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 5, ended.stderr
    assert all(line.startswith("master: --") for line in lines)


def test_a_port_in_use_is_told(crew: Crew) -> None:
    (master,) = crew.start(2)
    taken = {"--grpc": f"{LOOPBACK}:{master.grpc_port}", "--http": f"{LOOPBACK}:{free_port()}"}
    status = crew.folder / "no.status"
    arguments = [f"{flag}={value}" for flag, value in taken.items()]
    ended = run_master(
        "--id=4", *arguments, f"--status-dir={status}", f"--etcd={crew.cluster.endpoints[0]}"
    )
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) <= 2, ended.stderr
    assert "--grpc: cannot listen" in ended.stderr


def test_its_id_is_printed_for_the_sidecar() -> None:
    ended = run_master("--id=2", "--grpc=:9091", "--print-id", env={"POD_IP": "192.168.0.107"})
    assert ended.stdout == "master2-192.168.0.107:9091\n"


def test_resources_wait_for_a_worker_and_move_with_the_living(crew: Crew) -> None:
    (master,) = crew.start(2)
    names = [f"r{number}" for number in range(12)]
    for name in names:
        assert fields(master.add(name))["id"] == ""
    assert crew.assignments() == {}
    crew.work("a")
    wait_until(lambda: crew.is_settled(names), "the first Worker has everything", LONG)
    crew.work("b", "c")
    wait_until(lambda: crew.is_settled(names) and crew.loads() == [4, 4, 4], "fair shares", LONG)
    master.add("more")
    names.append("more")
    crew.workers["a"].child.kill()
    wait_until(lambda: len(crew.living()) == 2, "its lease has ended", LONG)
    wait_until(lambda: crew.is_settled(names), "the others have everything", LONG)
    assert sorted(crew.loads()) == [6, 7]
    nodes = fields(master.request("GET", "/nodes"))["nodes"]
    assert sorted((node["id"], node["resources"]) for node in nodes) in (
        [("b", 6), ("c", 7)],
        [("b", 7), ("c", 6)],
    )


def test_a_new_leader_finishes_what_the_old_one_left(crew: Crew) -> None:
    leader, _ = crew.start(2, 3)
    crew.work("a", "b")
    names = [f"r{number}" for number in range(6)]
    for name in names:
        leader.add(name)
    records = crew.resources()
    leader.freeze()
    crew.cluster.etcdctl("del", keys.assignment(records["r0"].worker, "r0").decode())
    crew.cluster.etcdctl("put", keys.assignment("gone", "r1").decode(), "{}")
    crew.workers["a"].child.kill()
    leader.kill()
    wait_until(lambda: len(crew.living()) == 1, "the killed Worker's lease has ended", LONG)
    wait_until(lambda: crew.is_settled(names), "everything is settled", LONG)
    assert crew.loads() == [6]


def metrics(master: Master) -> str:
    return master.request("GET", "/metrics").text


def connect(master: Master) -> "contextlib.closing[http.client.HTTPConnection]":
    host, port = master.url.removeprefix("http://").split(":")
    return contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=LONG))


def get_nodes(connection: http.client.HTTPConnection) -> tuple[int, str | None, str | None]:
    """Return status, what becomes of the connection, and who served."""
    connection.request("GET", "/nodes")
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection"), answer.getheader("crawler-served-by")


def run_master(
    *arguments: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-c", "from crawler.master import main; main()"]
    return subprocess.run(
        [*program, *arguments], capture_output=True, text=True, env=env, timeout=LONG, check=False
    )
