import pytest

from sidecar.core.keys import Kind, Layout, name_problem, parents

LAYOUT = Layout("/resources/election")


def test_the_candidates_keys_are_those_of_the_go_package() -> None:
    assert LAYOUT.candidate(0x694D7F2A) == b"/resources/election/694d7f2a"
    assert LAYOUT.candidate(-7) == b"/resources/election/-7"


def test_one_range_holds_everything_of_an_election_and_little_else() -> None:
    inside = [
        LAYOUT.pause,
        LAYOUT.pin,
        LAYOUT.request("1"),
        LAYOUT.answer("1"),
        LAYOUT.term(7),
        LAYOUT.candidate(1),
    ]
    assert all(LAYOUT.start <= key < LAYOUT.end for key in inside)
    assert not LAYOUT.start <= b"/resources/election" < LAYOUT.end
    assert not LAYOUT.start <= b"/resources/election2/1" < LAYOUT.end


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (b"/resources/election/694d7f2a", Kind.CANDIDATE),
        (b"/resources/election/not hex", Kind.CANDIDATE),
        (b"/resources/election/", Kind.FOREIGN),
        (b"/resources/election.control/pause", Kind.PAUSE),
        (b"/resources/election.control/pin", Kind.PIN),
        (b"/resources/election.control/request/ab", Kind.REQUEST),
        (b"/resources/election.control/request/", Kind.FOREIGN),
        (b"/resources/election.control/answer/ab", Kind.ANSWER),
        (b"/resources/election.control/other", Kind.FOREIGN),
        (b"/resources/election.history/0000000000000007", Kind.HISTORY),
        (b"/resources/election.elsewhere/7", Kind.FOREIGN),
    ],
)
def test_every_key_of_the_range_is_of_one_kind(key: bytes, kind: Kind) -> None:
    assert LAYOUT.kind(key) is kind


def test_history_keys_sort_by_token() -> None:
    assert LAYOUT.term(9) < LAYOUT.term(10) < LAYOUT.term(1 << 40)


def test_a_nonce_is_read_back_from_its_key() -> None:
    assert LAYOUT.nonce(LAYOUT.request("00ff")) == "00ff"


def test_the_grant_command_names_the_range() -> None:
    expected = "'/resources/election.control/' '/resources/election0'"
    assert LAYOUT.grant_command.endswith(expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        ("/a/", "ends in '/'"),
        ("/a//b", "'//'"),
        ("/a/../b", "'..'"),
        ("/a/.", "'.'"),
        ("/a\n", "control character"),
        ("/a\x7f", "control character"),
        ("/a\ud800", "UTF-8"),
        ("/a.control", ".control"),
        ("/a.history", ".history"),
    ],
)
def test_a_name_that_cannot_work_is_refused_with_the_reason(name: str, says: str) -> None:
    problem = name_problem(name)
    assert problem is not None
    assert says in problem
    with pytest.raises(ValueError, match="election's name"):
        Layout(name)


@pytest.mark.parametrize("name", ["/a", "a", "a/b", "/leader-sidecar/default/my-release", "/ä"])
def test_a_good_name_has_no_problem(name: str) -> None:
    assert name_problem(name) is None


def test_the_elections_above_a_name_are_its_prefixes() -> None:
    assert parents("/a/b/c") == ("/a", "/a/b")
    assert parents("a/b") == ("a",)
    assert parents("a") == ()
    assert parents("/a.control/b") == ()
