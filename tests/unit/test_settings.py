"""Settings from texts: what is taken, what is refused, and in which words."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sidecar.addresses import HostPort
from sidecar.errors import ConfigError
from sidecar.flags import BY_FIELD, FLAGS
from sidecar.kube.access import PodAccess
from sidecar.settings import Settings, StoreSettings

POD = {"POD_NAME": "master-0", "POD_IP": "10.0.0.7"}


def read(environment: Mapping[str, str] = POD, /, **given: str) -> Settings:
    election = {"election": "/resources/election"}
    return Settings.read(election | given, environment=environment, own_address=lambda: "192.0.2.9")


def problems(environment: Mapping[str, str] = POD, /, **given: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(environment, **given)
    return list(caught.value.problems)


def problem(**given: str) -> str:
    (only,) = problems(**given)
    return only


def test_an_election_in_a_pod_is_all_that_must_be_given() -> None:
    settings = read()
    assert settings.store == StoreSettings("/resources/election", ("http://127.0.0.1:2379",))
    assert (settings.id, settings.advertise, settings.priority) == ("master-0", "10.0.0.7", 100)
    assert (settings.ttl, settings.margin, settings.drain) == (5, None, 0.0)
    assert (settings.step_down_order, settings.accept_token_reset) == ("status-first", False)
    assert (settings.health_http, settings.health_exec, settings.health_tcp) == (None, None, None)
    assert (settings.health_interval, settings.health_failures) == (1.0, 3)
    assert (settings.status_dir, settings.http) == (
        Path("/run/leader-sidecar"),
        HostPort("", 4040),
    )
    assert (settings.ready_when, settings.log_format, settings.log_level) == (
        "candidate",
        "text",
        "info",
    )
    assert (settings.forward, settings.forward_proxy_protocol) == ((), False)
    assert (settings.forward_wait, settings.forward_drain, settings.forward_linger) == (5, 2, 5)
    assert settings.forward_max_connections == 4096
    assert settings.warnings == ()


def test_forwarding_is_taken() -> None:
    settings = read(
        forward="8080=9090, 127.0.0.1:8081=9091",
        forward_wait="500ms",
        forward_drain="0",
        forward_linger="1m",
        forward_max_connections="7",
        forward_proxy_protocol="true",
    )
    assert [str(rule) for rule in settings.forward] == [":8080=9090", "127.0.0.1:8081=9091"]
    assert (settings.forward_wait, settings.forward_drain, settings.forward_linger) == (0.5, 0, 60)
    assert (settings.forward_max_connections, settings.forward_proxy_protocol) == (7, True)
    assert settings.warnings == ()


def test_all_problems_of_forwarding_are_told_at_once() -> None:
    found = problems(
        forward="8080,9090=9090,4040=1",
        forward_wait="50ms",
        forward_drain="-1",
        forward_linger="x",
        forward_max_connections="0",
        forward_proxy_protocol="v2",
    )
    assert [problem.split(" ", 1)[0] for problem in found] == [
        "--forward",
        "--forward",
        "--forward-wait",
        "--forward-drain",
        "--forward-linger",
        "--forward-max-connections",
        "--forward-proxy-protocol",
        "--forward",
    ]
    assert found[0].startswith("--forward '8080' is no pair of ports; write PORT=PORT")
    assert "would go round in a loop" in found[1]
    assert found[-1] == "--forward listens on the port of --http, :4040; change one"


def test_waits_that_do_not_go_together_are_warned_of() -> None:
    assert "is not above --drain (10 s)" in read(forward="1=2", drain="10s").warnings[0]
    assert read(forward_wait="1s").warnings == ("--forward-wait has no effect without --forward",)


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    status_dir = tmp_path / "status"
    settings = read(
        {},
        id="b",
        advertise="db.example:9090",
        endpoints="https://a:2379, b:2379",
        priority="0",
        ttl="10",
        margin="2s",
        drain="1m",
        step_down_order="program-first",
        accept_token_reset="Yes",  # noqa: S106 - a fencing token is no secret
        health_exec="sh -c 'exit 0'",
        health_interval="500ms",
        health_failures="1",
        status_dir=str(status_dir),
        http="[::1]:0",
        ready_when="leader",
        log_format="json",
        log_level="debug",
    )
    assert settings.store.endpoints == ("https://a:2379", "https://b:2379")
    assert (settings.id, settings.advertise, settings.priority) == ("b", "db.example:9090", 0)
    assert (settings.ttl, settings.margin, settings.drain) == (10, 2.0, 60.0)
    assert (settings.step_down_order, settings.accept_token_reset) == ("program-first", True)
    assert settings.health_exec == ("sh", "-c", "exit 0")
    assert (settings.health_interval, settings.health_failures) == (0.5, 1)
    assert (settings.status_dir, settings.http) == (status_dir, HostPort("::1", 0))
    assert (settings.ready_when, settings.log_format, settings.log_level) == (
        "leader",
        "json",
        "debug",
    )


def test_http_and_tcp_probes_are_taken_apart() -> None:
    assert str(read(health_http="https://localhost/z?a=b").health_http) == "https://localhost/z?a=b"
    assert read(health_tcp="localhost:1").health_tcp == HostPort("localhost", 1)


def test_without_a_pod_the_address_is_this_machines() -> None:
    assert read({}, id="a").advertise == "192.0.2.9"
    assert read({"POD_IP": ""}, id="a").advertise == "192.0.2.9"


def test_a_flag_goes_before_the_pod() -> None:
    settings = read(id="other", advertise="10.1.1.1:80")
    assert (settings.id, settings.advertise) == ("other", "10.1.1.1:80")


def test_without_any_address_it_must_be_given() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.read({"election": "e", "id": "a"}, environment={}, own_address=lambda: None)
    assert caught.value.problems == (
        (
            "--advertise is missing, POD_IP is not set, and this machine has no IPv4 address but "
            "the "
            "loopback's; give HOST or HOST:PORT, such as 10.0.0.7:9090"
        ),
    )


def test_all_problems_are_told_at_once_and_each_names_its_flag(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    wrong = {
        "election": "/a/",
        "endpoints": "http://a",
        "user": "a:b",
        "password_file": str(tmp_path / "none"),
        "cacert": str(tmp_path),
        "cert": "",
        "key": "\0",
        "id": "a\nb",
        "advertise": "a b",
        "priority": "-1",
        "ttl": "nan",
        "margin": "inf",
        "drain": "-5",
        "step_down_order": "x",
        "accept_token_reset": "maybe",
        "health_http": "ftp://a",
        "health_exec": "",
        "health_tcp": "a",
        "health_interval": "1ms",
        "health_failures": "0",
        "forward": "8080",
        "forward_wait": "0",
        "forward_drain": "soon",
        "forward_linger": "-1",
        "forward_max_connections": "0",
        "forward_proxy_protocol": "v2",
        "status_dir": str(file),
        "http": "4040",
        "ready_when": "always",
        "label": "perhaps",
        "service_account_dir": "",
        "log_format": "xml",
        "log_level": "loud",
    }
    assert set(wrong) == set(BY_FIELD), "a setting without a wrong value here"
    found = problems(**wrong)
    for flag in FLAGS:
        own = [sentence for sentence in found if sentence.startswith(f"{flag.flag} ")]
        assert own, f"nothing said about {flag.flag}"
    exclusive = "--health-http and --health-exec and --health-tcp exclude each other; keep one"
    assert any(sentence.startswith(exclusive) for sentence in found)
    assert len(found) == len(wrong) + 1
    assert all(sentence.isprintable() for sentence in found)


def test_a_missing_name_and_a_missing_id_are_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.read({}, environment={}, own_address=lambda: "192.0.2.9")
    assert set(caught.value.problems) == {
        "--election is missing; give a name such as /resources/election",
        (
            "--id is missing, and POD_NAME is not set; give a name that no other candidate has, in "
            "Kubernetes by the environment variable POD_NAME from the field metadata.name"
        ),
    }


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"election": ""},
            (
                "--election is refused: the election's name is empty; give one such as "
                "/resources/election"
            ),
        ),
        (
            {"election": "/a/../b"},
            "--election is refused: the election's name '/a/../b' has a segment '.' or '..'",
        ),
        (
            {"endpoints": "http://a"},
            "--endpoints 'http://a' has no port; write it as http://a:2379",
        ),
        ({"id": ""}, "--id '' is empty; give a name that no other candidate has"),
        (
            {"id": "a\x1b[31m\nb"},
            (
                r"--id 'a\x1b[31m\nb' holds a newline, a control character or another that "
                r"cannot be "
                "printed; leave it out"
            ),
        ),
        ({"id": "\udcff"}, r"--id '\udcff' is not valid UTF-8; use other characters"),
        ({"id": "ä" * 201}, f"--id '{'ä' * 200}...' has 402 bytes; give at most 253"),
        (
            {"advertise": "http://a"},
            (
                "--advertise 'http://a' is no address that others could reach; write HOST or "
                "HOST:PORT, such as 10.0.0.7:9090"
            ),
        ),
        ({"priority": "1e3"}, "--priority '1e3' is not a whole number from 0 to 1000000"),
        ({"priority": "1000001"}, "--priority '1000001' is not a whole number from 0 to 1000000"),
        (
            {"ttl": "5 s"},
            (
                "--ttl '5 s' is not a duration; give seconds (5, 0.5) or a number with a unit "
                "(500ms, 5s, 2m), not below 0"
            ),
        ),
        ({"ttl": "0"}, "--ttl '0' cannot be a lease's; give at least 2s, such as 5s"),
        (
            {"ttl": "9000000001"},
            "--ttl '9000000001' cannot be a lease's; give at least 2s, such as 5s",
        ),
        (
            {"margin": "499ms"},
            (
                "--margin '499ms' is refused: margin 0.499 s is below 0.5 s, the least for a TTL "
                "of "
                "5 s; leave it out for the least"
            ),
        ),
        (
            {"ttl": "5", "margin": "5"},
            (
                "--margin '5' is refused: margin 5 s must be below the TTL, 5 s; leave it out "
                "for the "
                "least"
            ),
        ),
        (
            {"step_down_order": "leader-first"},
            "--step-down-order 'leader-first' is unknown; use status-first or program-first",
        ),
        (
            {"accept_token_reset": "sleep"},
            "--accept-token-reset 'sleep' is neither true nor false; use one of these",
        ),
        (
            {"health_http": "localhost:80/x"},
            (
                "--health-http 'localhost:80/x' is no URL to probe; write http://HOST:PORT/PATH or "
                "https://..., such as http://localhost:8080/healthz, without a user name, and with "
                "spaces and letters outside of ASCII percent-encoded"
            ),
        ),
        (
            {"health_exec": "sh -c 'x"},
            '--health-exec "sh -c \'x" ends within a quote or after a backslash; close it',
        ),
        (
            {"health_exec": " "},
            "--health-exec ' ' names no program; give one, such as 'pg_isready -q'",
        ),
        (
            {"health_tcp": ":80"},
            (
                "--health-tcp ':80' is no address to connect to; write HOST:PORT, such as "
                "localhost:8080"
            ),
        ),
        (
            {"health_http": "http://a", "health_tcp": "a:1"},
            "--health-http and --health-tcp exclude each other; keep one of them",
        ),
        ({"health_interval": "99ms"}, "--health-interval '99ms' is too short; give at least 100ms"),
        ({"health_failures": "0"}, "--health-failures '0' is not a whole number from 1 to 1000"),
        (
            {"http": "4040"},
            (
                "--http '4040' is no address to listen on; write HOST:PORT, or :PORT for every "
                "address "
                "of this machine, such as :4040"
            ),
        ),
        ({"ready_when": "x"}, "--ready-when 'x' is unknown; use candidate or leader"),
        ({"log_format": "x"}, "--log-format 'x' is unknown; use text or json"),
        ({"log_level": "x"}, "--log-level 'x' is unknown; use debug or info or warning or error"),
        ({"user": "root"}, "--user is given without --password-file; give both"),
        (
            {"cert": __file__, "endpoints": "https://a:1"},
            "--cert is given without --key; give both",
        ),
        ({"key": __file__, "endpoints": "https://a:1"}, "--key is given without --cert; give both"),
        (
            {"cacert": __file__},
            (
                "--cacert has no effect on 'http://127.0.0.1:2379'; write https:// in "
                "--endpoints, or "
                "leave --cacert out"
            ),
        ),
        ({"status_dir": ""}, "--status-dir '' is no path; give one"),
    ],
)
def test_a_problem_says_what_is_wrong_and_what_would_be_right(
    given: dict[str, str], sentence: str
) -> None:
    assert problem(**given) == sentence


def test_a_bad_pod_name_is_told_with_its_source() -> None:
    (sentence,) = problems({"POD_NAME": "a\tb", "POD_IP": "10.0.0.7"})
    assert sentence.startswith(r"--id (from POD_NAME) 'a\tb' holds")


def test_a_wrong_flag_is_not_blamed_on_the_pod() -> None:
    (sentence,) = problems(advertise="?")
    assert sentence.startswith("--advertise '?' is no address")


def test_a_wrong_setting_judges_no_other_one() -> None:
    assert len(problems(ttl="x", margin="30s")) == 1
    assert len(problems(endpoints="https://a", cacert=__file__)) == 1


def test_a_password_in_the_users_name_is_refused_and_not_repeated(tmp_path: Path) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("x")
    password_file.chmod(0o600)
    sentence = problem(user="root:secret", password_file=str(password_file))
    assert sentence.startswith("--user 'root' is followed by a colon and a password; give the name")
    assert "secret" not in sentence


@pytest.mark.parametrize("field", ["cacert", "password_file"])
def test_a_file_must_be_there_and_be_a_file(field: str, tmp_path: Path) -> None:
    flag = BY_FIELD[field].flag
    given = {"user": "root"} if field == "password_file" else {"endpoints": "https://a:1"}
    none = str(tmp_path / "none")
    assert problem(**given, **{field: none}) == (
        f"{flag} '{none}' cannot be read: No such file or directory; give a file"
    )
    folder = str(tmp_path)
    assert problem(**given, **{field: folder}) == f"{flag} '{folder}' is no regular file; give one"


@pytest.mark.parametrize(
    ("content", "end"),
    [(b"\n", "is empty"), (b"\xff", "is not UTF-8 text")],
)
def test_a_password_file_must_hold_a_password(content: bytes, end: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    file.chmod(0o600)
    assert problem(user="root", password_file=str(file)) == (
        f"--password-file '{file}' {end}; write the password into it"
    )


def test_a_password_that_others_may_read_is_a_warning_with_the_cure(tmp_path: Path) -> None:
    file = tmp_path / "my password"
    file.write_text("x\n")
    file.chmod(0o644)
    given = {"user": "root", "password_file": str(file)}
    settings = read(**given)
    assert settings.store.password_file == file
    assert settings.warnings == (
        (
            f"--password-file '{file}' may be read by every user of this machine (mode 0644); run: "
            f"chmod o-rwx '{file}'"
        ),
    )
    store = StoreSettings.read({"election": "e"} | given)
    assert store.warnings == settings.warnings
    file.chmod(0o640)
    assert read(**given).warnings == ()


def test_a_key_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert", tmp_path / "key"
    for file in (cert, key):
        file.write_text("x")
        file.chmod(0o604)
    (warning,) = read(endpoints="https://a:1", cert=str(cert), key=str(key)).warnings
    assert warning.startswith(f"--key '{key}' may be read by every user")


def test_a_status_directory_that_is_a_file_or_a_link_is_refused(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to(tmp_path)
    assert problem(status_dir=str(file)) == (
        f"--status-dir '{file}' is not a directory; give one, or a path yet unused"
    )
    assert problem(status_dir=str(link)) == (
        f"--status-dir '{link}' is a symbolic link; give the directory itself"
    )
    below = file / "below"
    assert problem(status_dir=str(below)) == (
        f"--status-dir '{below}' cannot be used: Not a directory"
    )
    assert read(status_dir=str(tmp_path)).status_dir == tmp_path


@pytest.mark.parametrize(
    ("text", "ttl", "warnings"),
    [
        ("2", 2, []),
        (
            "1s",
            1,
            [
                (
                    "--ttl '1s' is below 2s; etcd raises it to 2 s, and the sidecar uses what was "
                    "granted"
                )
            ],
        ),
        ("2500ms", 3, ["--ttl '2500ms' is not in whole seconds, as etcd needs it; taking 3s"]),
    ],
)
def test_a_ttl_that_etcd_would_change_is_a_warning(
    text: str, ttl: int, warnings: list[str]
) -> None:
    settings = read(ttl=text)
    assert (settings.ttl, list(settings.warnings)) == (ttl, warnings)


def test_the_least_margin_is_accepted_whatever_floats_make_of_it() -> None:
    assert read(ttl="3", margin="300ms").margin == 0.3


def test_a_probe_command_that_is_not_there_is_a_warning() -> None:
    (warning,) = read(health_exec="no-such-program --x").warnings
    assert warning == (
        "--health-exec names the program 'no-such-program', which is not there; until it is, the "
        "probe fails and this candidate does not stand"
    )
    assert read(health_exec=sys.executable).warnings == ()


def test_the_store_can_be_read_alone() -> None:
    assert StoreSettings.read({"election": "e", "endpoints": "a:1"}).endpoints == ("http://a:1",)
    with pytest.raises(ConfigError, match="--election is missing"):
        StoreSettings.read({})


def test_an_unknown_name_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="not a setting: tll"):
        Settings.read({"election": "e", "tll": "5"})


def test_importing_the_settings_costs_neither_grpc_nor_asyncio() -> None:
    program = "import json, sys, sidecar.settings; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not {"asyncio", "click", "google.protobuf", "grpc"} & set(json.loads(done.stdout))


INSIDE = POD | {
    "KUBERNETES_SERVICE_HOST": "fd00::1",
    "KUBERNETES_SERVICE_PORT": "443",
    "POD_NAMESPACE": "shop",
    "POD_UID": "u-1",
}


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """Return the files of a service account."""
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("secret")
    (folder / "ca.crt").write_text("pem")
    return folder


def test_a_pod_with_a_token_is_labelled(account: Path) -> None:
    access = PodAccess("master-0", "shop", "u-1", "fd00::1", 443, account)
    assert read(INSIDE, service_account_dir=str(account)).label == access
    settings = read(INSIDE, service_account_dir=str(account), label="true")
    assert (settings.label, settings.warnings) == (access, ())
    assert read(INSIDE, service_account_dir=str(account), label="no").label is None


def test_outside_of_kubernetes_there_is_nothing_to_label(account: Path) -> None:
    settings = read(POD, service_account_dir=str(account))
    assert (settings.label, settings.warnings) == (None, ())


def test_the_namespace_may_come_from_the_service_account(account: Path) -> None:
    (account / "namespace").write_text("other\n")
    environment = {name: text for name, text in INSIDE.items() if name != "POD_NAMESPACE"}
    label = read(environment, service_account_dir=str(account)).label
    assert label is not None
    assert label.namespace == "other"


def test_a_pod_without_a_token_goes_without_a_label_and_is_told(account: Path) -> None:
    (account / "token").unlink()
    settings = read(INSIDE, service_account_dir=str(account))
    assert settings.label is None
    (warning,) = settings.warnings
    assert warning.startswith("--label is off: ")
    assert "No such file or directory" in warning


def test_all_that_a_wanted_label_lacks_is_told(account: Path) -> None:
    (account / "ca.crt").write_text("")
    found = problems({}, id="A", label="true", service_account_dir=str(account), ttl="x")
    assert [sentence.split()[0] for sentence in found].count("--label") == 4
    assert any("POD_NAME is not set" in sentence for sentence in found)
    assert any("POD_NAMESPACE is not set" in sentence for sentence in found)
    assert any("it is empty" in sentence for sentence in found)
    assert any(sentence.startswith("--ttl") for sentence in found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"POD_NAME": "a/../b"},
        {"POD_NAMESPACE": "a b"},
        {"KUBERNETES_SERVICE_HOST": "a\r\nb"},
        {"KUBERNETES_SERVICE_PORT": "0"},
        {"KUBERNETES_SERVICE_PORT": "x"},
    ],
)
def test_what_cannot_be_a_pods_is_refused(account: Path, wrong: dict[str, str]) -> None:
    sentence = problems(INSIDE | wrong, id="a", label="true", service_account_dir=str(account))[0]
    assert sentence.startswith("--label cannot be done: ")
    assert "\n" not in sentence


def test_a_switch_that_is_neither_is_refused() -> None:
    assert problem(label="maybe").startswith("--label 'maybe' is neither")
