"""The status page in a real browser: what it shows, and what it must never go on showing."""

import pytest

from tests.integration.support import Sidecar, Team
from tests.page.browser import Browser
from tests.support.procs import wait_until

pytestmark = pytest.mark.page

WITHIN = 30.0


def look(browser: Browser, sidecar: Sidecar) -> None:
    browser.open(f"{sidecar.url}/")


def wait_for_text(browser: Browser, selector: str, text: str) -> None:
    wait_until(lambda: text in browser.text(selector), f"{selector} shows {text!r}", WITHIN)


@pytest.mark.parametrize(("name", "role"), [("a", "leader"), ("b", "follower")])
def test_the_page_says_who_leads_with_which_token(
    browser: Browser, team: Team, name: str, role: str
) -> None:
    team.wait_for_queue("a", "b", "c")
    look(browser, team.members[name])
    wait_for_text(browser, "#leader", "a")
    assert browser.text("#me") == name
    assert browser.text("#role") == role
    assert browser.text("#token") == str(team.members["a"].token)
    assert [text[0] for text in browser.texts("#candidates li")] == ["a", "b", "c"]
    assert browser.text("#trouble") == ""


def test_a_handover_shows_without_a_reload(browser: Browser, team: Team) -> None:
    before = team.members["a"].token or 0
    look(browser, team.members["c"])
    wait_for_text(browser, "#leader", "a")
    assert team.command("handover").returncode == 0
    leader = team.wait_for_leader(after=before)
    wait_for_text(browser, "#leader", leader.name)
    wait_for_text(browser, "#token", str(leader.token))


def test_a_page_whose_sidecar_is_gone_shows_no_leader(browser: Browser, team: Team) -> None:
    look(browser, team.members["a"])
    wait_for_text(browser, "#leader", "a")
    team.members["a"].child.kill()
    wait_until(lambda: browser.text("#trouble") != "", "the page says that it is cut off", WITHIN)
    wait_until(lambda: browser.text("#leader") != "a", "the page forgets the leader", WITHIN)


def test_the_page_asks_its_own_sidecar_only_and_has_nothing_to_complain_of(
    browser: Browser, team: Team
) -> None:
    sidecar = team.members["b"]
    look(browser, sidecar)
    wait_for_text(browser, "#leader", "a")
    own = {address for address in browser.requests() if not address.startswith(("data:", "about:"))}
    assert {address for address in own if not address.startswith(f"{sidecar.url}/")} == set()
    assert browser.complaints() == []
    assert browser.title != ""
    assert browser.run("return document.documentElement.lang") == "en"
