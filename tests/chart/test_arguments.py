"""Every argument and variable that the chart gives to our programs is one that they take."""

import re
from collections.abc import Iterator

import click
import pytest

from sidecar.cli.main import group
from sidecar.flags import FLAGS
from tests.chart.choices import CHOICES
from tests.support.helm import Object, containers, pod_of, render

# Settings of `run` that come with the forwarder and the pod's label; known ones need not be here.
OURS = "leader-sidecar:0.1.0"


@pytest.fixture(params=list(CHOICES.values()), ids=list(CHOICES))
def own(request: pytest.FixtureRequest) -> list[Object]:
    """All containers of our image that call the command."""
    found = (pod_of(thing) for thing in render(*request.param))
    every = [c for pod in found if pod is not None for c in containers(pod)]
    return [c for c in every if c["image"] == OURS and "command" not in c]


def command_of(container: Object) -> tuple[click.Command, list[str]]:
    """The command that a container calls, and the arguments of it."""
    arguments = list(container["args"])
    context = click.Context(group, info_name="leader-sidecar")
    command: click.Command = group
    while isinstance(command, click.Group):
        name = arguments.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, name
        command = inner
    return command, arguments


def flags(arguments: list[str]) -> Iterator[str]:
    for argument in arguments:
        name, _, _ = argument.partition("=")
        yield name


def test_every_argument_is_an_option(own: list[Object]) -> None:
    for container in own:
        command, arguments = command_of(container)
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(flags(arguments)) <= known, container["name"]


def test_every_required_option_is_given(own: list[Object]) -> None:
    for container in own:
        command, arguments = command_of(container)
        given = {*flags(arguments), *(v["name"] for v in container.get("env", []))}
        for parameter in command.params:
            if parameter.required:
                names = {*parameter.opts, parameter.envvar}
                assert names & given, (container["name"], parameter.opts)


def test_every_variable_of_ours_is_a_setting(own: list[Object]) -> None:
    settings = {flag.env for flag in FLAGS}
    for container in own:
        names = {v["name"] for v in container.get("env", [])}
        assert {n for n in names if n.startswith("LEADER_SIDECAR_")} <= settings


def test_durations_have_the_form_that_the_command_reads(own: list[Object]) -> None:
    for container in own:
        for argument in container["args"]:
            if argument.startswith(("--ttl=", "--drain=", "--within=", "--forward-linger=")):
                assert re.fullmatch(r"--[a-z-]+=[0-9.]+(ms|s|m)?", argument), argument
