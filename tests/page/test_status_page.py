"""The status page in a real browser: what it shows, and what it must never go on showing."""

import re

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


def handed_over_by_a(browser: Browser, team: Team) -> Sidecar:
    """Have a hand over while the page of c is open; return who leads then."""
    before = team.members["a"].token or 0
    look(browser, team.members["c"])
    wait_for_text(browser, "#leader", "a")
    assert team.command("handover").returncode == 0
    return team.wait_for_leader(after=before)


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
    leader = handed_over_by_a(browser, team)
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


def test_while_nobody_leads_the_page_shows_nobody(browser: Browser, team: Team) -> None:
    look(browser, team.members["b"])
    wait_for_text(browser, "#leader", "a")
    assert team.command("pause").returncode == 0
    wait_for_text(browser, "#leader", "Nobody")
    wait_for_text(browser, "#trouble", "paused")
    assert browser.run("return document.querySelector('#term').hidden")
    assert team.command("resume").returncode == 0
    wait_until(lambda: browser.text("#leader") in {"a", "b", "c"}, "somebody leads", WITHIN)
    assert browser.text("#trouble") == ""


def test_the_terms_are_a_timeline_and_the_changes_a_list(browser: Browser, team: Team) -> None:
    first = team.members["a"].token or 0
    leader = handed_over_by_a(browser, team)
    wait_until(lambda: browser.texts("#timeline span") == ["a", leader.name], "two bars", WITHIN)
    edges = browser.run(
        "return [...document.querySelectorAll('#timeline span')]"
        ".map((bar) => [bar.getBoundingClientRect().left, bar.getBoundingClientRect().width])"
    )
    assert edges[0][0] < edges[1][0]
    assert all(width > 0 for _, width in edges)
    # How a term ended is written down by its leader, maybe after the next one has begun.
    wait_for_text(browser, "#log", "a leads no more: handover")
    told = browser.texts("#log li bdi")
    began = f"{leader.name} leads, token {leader.token}, after "
    assert [text for text in told if "leads" in text][-1] == f"a leads, token {first}"
    assert any(text.startswith(began) for text in told), told
    team.members[leader.name].child.terminate()
    wait_for_text(browser, "#log", f"{leader.name} stands no more")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_follows_the_readers_colours(
    browser: Browser, team: Team, scheme: str
) -> None:
    browser.prefer(scheme)
    browser.resize(360, 780)
    look(browser, team.members["a"])
    wait_for_text(browser, "#leader", "a")
    assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
    back, text = browser.run(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    assert (brightness(back) > brightness(text)) == (scheme == "light")


def test_a_screen_reader_is_told_who_leads_and_what_each_part_is(
    browser: Browser, team: Team
) -> None:
    look(browser, team.members["a"])
    wait_for_text(browser, "#left", "s")
    told = [(role, name.lower()) for role, name in browser.spoken()]
    assert ("heading", "who leads") in told
    assert ("StaticText", "a") in told
    assert ("meter", "lease left") in told
    regions = {name for role, name in told if role == "region"}
    assert {"candidates, in order", "this sidecar", "last terms", "recent events"} <= regions
    polite = browser.run("return document.querySelector('#leader').getAttribute('aria-live')")
    assert polite == "polite"


def brightness(colour: str) -> int:
    """Return the sum of a colour's parts, as `rgb(...)` says them."""
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])
