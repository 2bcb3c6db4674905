"""What is written can be read, and what cannot be read is no record."""

import json
import subprocess
import sys
from pathlib import Path

import crawler
import pytest
from crawler import keys
from crawler.records import Assignment, Node, Page, Resource, Results, Spec
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(crawler.__file__).parent.parent
SPEC = Spec("news", ("http://a.example/", "https://b.example/ä"), 2, 0.5)
RECORDS = (
    Resource(SPEC, "w1", "id-1", 7),
    Assignment(SPEC, "w1", 7),
    Results("news", "w1", 5, (Page("http://a.example/", 200, 12, "A"),)),
    Node("crawler.worker", "w1", "10.0.0.1:9100", {"zone": "a"}, ("Crawl",)),
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "urls", "depth", "rate", "nodes", "id", "pages", "metadata"])
            | st.text(max_size=3),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_was_written(
    record: Resource | Assignment | Results | Node,
) -> None:
    assert type(record).decode(record.encode()) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_unknown_fields_are_ignored(record: Resource | Assignment | Results | Node) -> None:
    document = json.loads(record.encode()) | {"new": [1]}
    assert type(record).decode(json.dumps(document).encode()) == record


@given(st.binary() | documents.map(lambda document: json.dumps(document).encode()))
def test_what_is_no_record_raises_nothing(value: bytes) -> None:
    for record in RECORDS:
        found = type(record).decode(value)
        assert found is None or type(found).decode(found.encode()) == found


def test_missing_fields_have_defaults() -> None:
    assert Resource.decode(b'{"name":"n","urls":[]}') == Resource(Spec("n"))


def test_nodes_have_the_layout_of_go_micro() -> None:
    document = json.loads(RECORDS[3].encode())
    assert document == {
        "name": "crawler.worker",
        "version": "latest",
        "metadata": None,
        "endpoints": [{"name": "Crawl", "request": None, "response": None, "metadata": {}}],
        "nodes": [{"id": "w1", "address": "10.0.0.1:9100", "metadata": {"zone": "a"}}],
    }


def test_keys_are_taken_apart_as_they_were_put_together() -> None:
    assert keys.resource_of(keys.resource("ä b")) == "ä b"
    assert keys.assignment_of(keys.assignment("w", "r")) == ("w", "r")
    node = keys.node(keys.REGISTRY, "s", "a/b")
    assert keys.node_of(node, keys.REGISTRY, "s") == "a-b"


@pytest.mark.parametrize("key", [b"", b"/crawler/", b"/crawler/resources/", b"/x\xff", b"/a/b"])
def test_other_keys_are_none_of_ours(key: bytes) -> None:
    assert keys.resource_of(key) is None
    assert keys.assignment_of(key) is None
    assert keys.node_of(key, keys.REGISTRY, "s") is None


def test_the_generated_messages_are_fresh(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}"]
    command += [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, str(ROOT / "crawler/crawler.proto")], check=True, cwd=ROOT)
    for name in ("crawler_pb2.py", "crawler_pb2.pyi"):
        fresh = (tmp_path / "crawler" / name).read_text()
        assert (ROOT / "crawler" / name).read_text() == fresh, "run make proto"
