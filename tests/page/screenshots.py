"""`make screenshots`: pictures of the status page for the README, of real sidecars."""

import tempfile
from pathlib import Path

from tests.integration.support import Team
from tests.page.browser import Browser
from tests.support.binaries import BUILT_VERSION, available_versions
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import wait_until

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "page"
WIDE, PHONE = (1000, 1180), (390, 844)


def main() -> None:
    """Write a picture of each state."""
    version = next(iter(available_versions()), BUILT_VERSION)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        EtcdCluster(EtcdOptions(version=version, no_fsync=True)) as etcd,
        Browser(Path(folder)) as browser,
        Team(etcd.endpoints, Path(folder), election="/resources/election") as team,
    ):
        team.start("master-1", "master-2", "master-3")
        _take_all(browser, team)


def _take_all(browser: Browser, team: Team) -> None:
    browser.prefer("light")
    browser.resize(*WIDE)
    browser.open(f"{team.members['master-2'].url}/")
    team.command("handover")
    team.command("handover", "--to", "master-2")
    _shown(browser, "#log", "master-2 leads")
    _shown(browser, "#note", "acts as leader")
    _take(browser, "leader")
    browser.prefer("dark")
    browser.resize(*PHONE)
    _take(browser, "phone-dark")
    browser.prefer("light")
    browser.resize(*WIDE)
    team.command("pause")
    _shown(browser, "#leader", "Nobody")
    _take(browser, "nobody")
    team.command("resume")
    _shown(browser, "#leader", "master-")
    team.members["master-2"].child.kill()
    _shown(browser, "#role", "no answer")
    _take(browser, "cut-off")


def _shown(browser: Browser, selector: str, text: str) -> None:
    wait_until(lambda: text in browser.text(selector), f"{selector} shows {text!r}")


def _take(browser: Browser, name: str) -> None:
    (FOLDER / f"{name}.png").write_bytes(browser.screenshot())


if __name__ == "__main__":
    main()
