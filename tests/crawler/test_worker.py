"""Whole Workers on a real etcd, with a web site on loopback."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crawler import keys
from crawler.records import Results, Spec

from tests.crawler.site import Site, Visit, html
from tests.crawler.worker_support import LONG, Store, Worker
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration

FAST = 50.0  # requests per second
Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


@pytest.fixture
def store(cluster: EtcdCluster) -> Iterator[Store]:
    made = Store(cluster)
    yield made
    for prefix in (keys.ROOT, keys.REGISTRY):  # the Workers are killed by now, their keys stand
        cluster.etcdctl("del", "--prefix", prefix)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site({"/": html(["/a", "/b"], title="Start"), "/a": html(["/c"]), "/b": html()}) as made:
        made.pages["/c"] = html(title="Leaf")
        yield made


@pytest.fixture
def start(cluster: EtcdCluster, store: Store, tmp_path: Path) -> Iterator[Start]:
    """Start a Worker by its id, with options; all are gone at the end."""
    made: list[Worker] = []

    def start(id_: str, *options: str, name: str = "") -> Worker:
        worker = Worker(id_, cluster.endpoints, tmp_path, "--again=50ms", *options, name=name)
        made.append(worker)
        worker.child.start()
        return worker

    yield start
    for worker in made:
        worker.close()


def spec(site: Site, name: str = "site", path: str = "/", depth: int = 0) -> Spec:
    return Spec(name, (f"{site.url}{path}",), depth, FAST)


def test_a_worker_crawls_what_is_assigned_to_it_to_its_depth(
    store: Store, site: Site, start: Start
) -> None:
    store.assign("1", spec(site, depth=1))
    worker = start("1", "--again=10m")
    results = store.wait_for_results("site", 2)
    assert (results.name, results.worker, results.fetched) == ("site", "1", 3)
    pages = {page.url.removeprefix(site.url): page for page in results.pages}
    assert list(pages) == ["/", "/a", "/b"]
    assert (pages["/"].status, pages["/"].title, pages["/"].error) == (200, "Start", "")
    assert worker.metric('crawler_pages_total{status="2xx"}') == 3
    assert site.count("/c") == 0


def test_a_changed_assignment_is_crawled_anew_and_the_counter_goes_on(
    store: Store, site: Site, start: Start
) -> None:
    store.assign("1", spec(site))
    worker = start("1", "--again=10m")
    store.wait_for_results("site", 0)
    store.assign("1", spec(site, depth=2))
    results = store.wait_for_results("site", 4)
    assert results.fetched == 5
    assert site.count("/c") == 1
    assert worker.metric('crawler_assignments_total{change="changed"}') == 1


def test_an_assignment_that_is_only_written_anew_does_not_disturb_its_crawl(
    store: Store, site: Site, start: Start
) -> None:
    store.assign("1", spec(site))
    worker = start("1")
    before = store.wait_for_results("site", 3)
    store.assign("1", spec(site))
    store.wait_for_results("site", before.fetched + 3)
    assert worker.metric('crawler_assignments_total{change="changed"}') == 0


def test_a_dropped_resource_is_not_asked_for_any_more(
    store: Store, site: Site, start: Start
) -> None:
    store.assign("1", spec(site, "one", "/a"))
    store.assign("1", spec(site, "two", "/b"))
    worker = start("1")
    store.wait_for_results("one", 3)
    store.withdraw("1", "one")
    worker.wait_for_metric("crawler_worker_resources", 1)
    asked, written = site.count("/a"), store.kv(keys.results("one"))
    # The other resource is the clock: as often as it is asked for, the first one would be.
    site.wait_for("/b", site.count("/b") + 10)
    assert site.count("/a") == asked
    assert store.kv(keys.results("one")) == written


def test_a_worker_acts_on_nothing_that_is_assigned_to_another(
    store: Store, site: Site, start: Start
) -> None:
    store.assign("2", spec(site, "other", "/a"))
    store.assign("1", spec(site, "misplaced", "/c"), to="2")
    store.assign("1", spec(site, "own", "/b"))
    worker = start("1")
    store.wait_for_results("own", 5)
    worker.wait_for_log(r"not assigned to this worker.*misplaced")
    assert site.count("/a") == site.count("/c") == 0
    assert store.kv(keys.results("other")) is store.kv(keys.results("misplaced")) is None


def test_no_fetch_takes_resources_and_fetches_nothing(
    store: Store, site: Site, start: Start
) -> None:
    store.assign("1", spec(site))
    idle, busy = start("1", "--no-fetch"), start("2")
    idle.wait_for_metric("crawler_worker_resources", 1)
    store.assign("2", spec(site, "clock", "/b"))
    site.wait_for("/b", 10)
    assert site.count("/") == 0
    assert store.kv(keys.results("site")) is None
    assert busy.metric("crawler_worker_resources") == 1


def test_a_stopped_worker_gives_its_place_back_at_once(store: Store, start: Start) -> None:
    worker = start("1", "--ttl=600")
    store.wait_for_registration("1")
    assert worker.child.terminate(LONG) == 0
    assert store.registration("1") == 0


def test_an_id_in_use_is_refused_in_a_line(store: Store, start: Start) -> None:
    first = start("1")
    registration = store.wait_for_registration("1")
    second = start("1", name="second")
    assert second.child.wait(LONG) == 1
    last = second.child.lines("err")[-1]
    assert last.startswith("worker: --id: the id '1' is in use by another crawler.worker")
    assert first.child.running
    assert store.registration("1") == registration


def test_a_worker_whose_lease_died_while_it_was_frozen_writes_nothing_of_what_moved(
    store: Store, site: Site, start: Start
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def held(visit: Visit) -> None:
        asked.set()
        answer.wait(LONG)
        html(title="Held")(visit)

    site.pages["/held"] = held
    store.assign("1", Spec("site", (f"{site.url}/", f"{site.url}/held"), 0, FAST))
    worker = start("1")
    before = store.wait_for_registration("1")
    assert asked.wait(LONG)  # a page is under way
    worker.child.pause()
    store.wait_until_gone("1")
    # As the Master does: to another Worker, which writes its own results.
    store.withdraw("1", "site")
    store.assign("2", spec(site))
    theirs = Results("site", "2", fetched=1000).encode().decode()
    store.cluster.etcdctl("put", keys.results("site").decode(), theirs)
    written = store.kv(keys.results("site"))
    answer.set()
    wait_until(lambda: site.count("/held") == 1, "the page was answered", LONG)
    worker.child.resume()
    store.wait_for_registration("1", after=before)
    # It works again, and still has written nothing of what it has lost.
    store.assign("1", spec(site, "new", "/b"))
    store.wait_for_results("new", 3)
    assert store.kv(keys.results("site")) == written
    assert site.count("/held") == 1


def test_a_worker_stops_before_its_lease_can_have_run_out_and_takes_up_again(
    site: Site, tmp_path: Path
) -> None:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as own:
        store = Store(own)
        store.assign("1", spec(site))
        worker = Worker("1", own.endpoints, tmp_path, "--again=50ms")
        try:
            worker.child.start()
            before = store.wait_for_results("site", 3)
            own.members[0].kill()
            worker.wait_for_log("crawling stops resources=1")
            worker.wait_for_metric("crawler_worker_registered", 0)
            asked = site.count("/")
            own.members[0].child.start()
            own.wait_healthy()
            store.wait_for_registration("1")
            # As long as etcd takes to start, dozens of pages could have been fetched.
            assert site.count("/") - asked < 100
            after = store.wait_for_results("site", before.fetched + 3)
            assert after.fetched > before.fetched
        finally:
            worker.close()
