"""Configuration files: every problem at once, with file and key."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.firstboot.form import Form as ProvisioningForm
from agent.settings import AgentSettings
from flchain.base.errors import ConfigError
from flchain_edge.mqtt.settings import MqttSettings
from flchain_edge.newer_python import tomllib
from flchain_edge.settings.config import load_config, render_example
from flchain_edge.settings.node import EnrolmentSettings
from miner.settings import MinerSettings
from tests.support.floats import floats
from tools.genesis import NetworkSettings
from tools.registrar.enroller import RegistrarSettings


@dataclass(frozen=True)
class Peer:
    name: str = field(metadata={"pattern": "[a-z]+", "form": "small letters", "example": "alpha"})
    power: int = field(default=1, metadata={"min": 1})


@dataclass(frozen=True)
class Training:
    rate: float = field(default=0.1, metadata={"min": 0.0, "max": 1.0, "help": "learning rate"})
    codec: str = field(default="identity", metadata={"choices": ("identity", "ternary")})
    layers: tuple[int, ...] = field(default=(128, 10), metadata={"max": 3})
    is_verbose: bool = False

    def __post_init__(self) -> None:
        if self.is_verbose and self.rate == 0.0:
            raise ValueError("is_verbose: makes no sense with rate 0")


@dataclass(frozen=True)
class Node:
    chain: str = field(metadata={"help": "name of the chain", "example": "field-1"})
    data_dir: Path = field(metadata={"help": "where everything is kept", "example": "data"})
    mqtt: MqttSettings = field(default_factory=MqttSettings, metadata={"help": "the broker"})
    training: Training = field(default_factory=Training)
    peers: tuple[Peer, ...] = ()


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Node:
    path = folder / "agent.toml"
    path.write_text(text)
    return load_config(path, Node, environ or {})


def find_problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    return list(caught.value.problems)


GOOD = 'chain = "c"\ndata_dir = "data"\n'


def test_everything_given_is_read(tmp_path: Path) -> None:
    """Values of every kind arrive typed; paths count from the file's folder; what is not given has its default."""
    node = load(
        tmp_path,
        GOOD
        + """
        [mqtt]
        port = 8883
        tls_ca = "/etc/ca.pem"
        [training]
        rate = 1
        layers = [5]
        is_verbose = true
        [[peers]]
        name = "a"
        [[peers]]
        name = "b"
        power = 3
        """,
    )
    assert node == Node(
        "c",
        tmp_path / "data",
        MqttSettings(port=8883, tls_ca=Path("/etc/ca.pem")),
        Training(rate=1.0, layers=(5,), is_verbose=True),
        (Peer("a"), Peer("b", 3)),
    )
    assert isinstance(node.training.rate, float)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """One run names every fault, each with file, section, key, rule and value."""
    assert find_problems(
        tmp_path,
        """
        data_dir = 5
        [mqtt]
        port = "abc"
        keepalive_s = 0
        prot = 1
        [training]
        rate = nan
        codec = "zip"
        layers = [1, "x"]
        is_verbose = 1
        [[peers]]
        name = "A1"
        [[peers]]
        power = true
        [traning]
        """,
    ) == [
        "agent.toml: traning: unknown key, did you mean training?",
        "agent.toml: chain: is missing (name of the chain)",
        "agent.toml: data_dir: must be a path, is 5",
        "agent.toml: [mqtt] prot: unknown key, did you mean port?",
        'agent.toml: [mqtt] port: must be 1..65535, is "abc"',
        "agent.toml: [mqtt] keepalive_s: must be 1..3600, is 0",
        "agent.toml: [training] rate: must be 0.0..1.0, is nan",
        'agent.toml: [training] codec: must be one of identity, ternary, is "zip"',
        "agent.toml: [training] layers: must be a whole number, is [1, 'x']",
        "agent.toml: [training] is_verbose: must be true or false, is 1",
        'agent.toml: [peers #1] name: must be small letters, is "A1"',
        "agent.toml: [peers #2] name: is missing",
        "agent.toml: [peers #2] power: must be at least 1, is true",
    ]


def test_rules_over_several_keys_are_told(tmp_path: Path) -> None:
    """A dataclass's own check is reported like any other problem."""
    assert find_problems(tmp_path, GOOD + "[training]\nrate = 0\nis_verbose = true") == [
        "agent.toml: [training] is_verbose: makes no sense with rate 0"
    ]


def test_environment_wins(tmp_path: Path) -> None:
    """A variable overrides the file and fills in for it, also in a section the file does not have."""
    environ = {
        "FLCHAIN_CHAIN": "env",
        "FLCHAIN_MQTT_PORT": "99",
        "FLCHAIN_MQTT_PASSWORD": "secret",
        "FLCHAIN_TRAINING_LAYERS": "1, 2",
        "FLCHAIN_TRAINING_IS_VERBOSE": "yes",
        "FLCHAIN_MQTT_HOST": "",
        "OTHER": "x",
    }
    node = load(tmp_path, 'data_dir = "d"\n[mqtt]\nport = 5\nhost = "h"', environ)
    assert (node.chain, node.mqtt) == ("env", MqttSettings("h", 99, password="secret"))
    assert (node.training.layers, node.training.is_verbose) == ((1, 2), True)


def test_secrets_are_not_repeated(tmp_path: Path) -> None:
    """A refused value of the environment, or of a secret key, is not shown in the problem; its variable is."""
    problems = find_problems(
        tmp_path, GOOD + "[mqtt]\npassword = 12345", {"FLCHAIN_MQTT_PORT": "hunter2", "FLCHAIN_TRAINING_RATE": "7"}
    )
    assert problems == [
        "agent.toml: [mqtt] port: must be 1..65535, set by FLCHAIN_MQTT_PORT",
        "agent.toml: [mqtt] password: must be a text, is not",
        "agent.toml: [training] rate: must be 0.0..1.0, set by FLCHAIN_TRAINING_RATE",
    ]
    assert "hunter" not in repr(MqttSettings(password="hunter2"))


@pytest.mark.parametrize("text", ["chain = ", "\udcff", "chain = 1\nchain = 2"])
def test_what_is_no_toml_is_told(tmp_path: Path, text: str) -> None:
    """A syntax error names the file; so does a missing or oversized file."""
    path = tmp_path / "agent.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"agent\.toml: is not (TOML|UTF-8 text)"):
        load_config(path, Node, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.toml", Node, {})
    path.write_text("#" * 1_000_000)
    with pytest.raises(ConfigError, match="larger"):
        load_config(path, Node, {})


def test_example_is_a_valid_file_that_names_every_key(tmp_path: Path) -> None:
    """The printed example loads as it is, gives the defaults, and with its comments removed still names every key."""
    example = render_example(Node)
    node = load(tmp_path, example)
    assert node == Node("field-1", tmp_path / "data")
    keys = [
        line.removeprefix("# ") for line in example.splitlines() if " = " in line or line.lstrip("# ").startswith("[")
    ]
    full = tomllib.loads("\n".join(keys))
    assert set(full) == {"chain", "data_dir", "mqtt", "training", "peers"}
    assert set(full["mqtt"]) == set(MqttSettings.__dataclass_fields__)
    assert full["training"] == {"rate": 0.1, "codec": "identity", "layers": [128, 10], "is_verbose": False}
    assert "learning rate" in example


leaves = st.none() | st.booleans() | st.integers() | floats() | st.text(max_size=8)
values = st.recursive(leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3))
keys = st.sampled_from(["chain", "data_dir", "mqtt", "training", "peers", "port", "rate", "name", "layers"])


def render(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render(str(key))} = {render(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(render, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return '"' + "".join(f"\\U{ord(mark):08x}" for mark in str(value) if not 0xD800 <= ord(mark) < 0xE000) + '"'


@settings(max_examples=50)
@given(st.dictionaries(keys, values | st.dictionaries(keys, values, max_size=4), max_size=6))
def test_no_file_brings_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, object]
) -> None:
    """Any TOML is either read or refused by ConfigError."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("\n".join(f"{key} = {render(value)}" for key, value in tables.items()))
    try:
        assert isinstance(load_config(path, Node, {}), Node)
    except ConfigError as error:
        assert all(problem.startswith("any.toml: ") for problem in error.problems)


@pytest.mark.parametrize("text", ['registrar = "a:1"', 'registrar = "a:99999"', f'fingerprint = "{"ab" * 32}"'])
def test_a_registrar_is_named_whole_or_not_at_all(text: str, tmp_path: Path) -> None:
    """Half a registrar, or one at no port, is reported at start and not in a month, when the certificate expires."""
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError, match="registrar"):
        load_config(tmp_path / "m.toml", EnrolmentSettings)


def walk_fields(kind: type) -> Iterator[Field[object]]:
    """The fields of a class of settings, and of every section in it."""
    hints = typing.get_type_hints(kind)
    for entry in fields(kind):
        yield entry
        inner = [hints[entry.name], *typing.get_args(hints[entry.name])]
        for found in inner:
            if is_dataclass(found):
                yield from walk_fields(typing.cast("type", found))


@pytest.mark.parametrize("kind", [AgentSettings, MinerSettings, NetworkSettings, RegistrarSettings, ProvisioningForm])
def test_no_operator_reads_a_regular_expression(kind: type, tmp_path: Path) -> None:
    """Every setting of a certain form says in words what it wants, in the example and where it is wrong."""
    shown = render_example(kind)
    patterned = [entry for entry in walk_fields(kind) if "pattern" in entry.metadata]
    assert patterned
    for entry in patterned:
        form = entry.metadata["form"]
        assert entry.metadata["pattern"] not in shown and form in shown, entry.name
        holder = make_dataclass("Holder", [(entry.name, str, field(metadata=dict(entry.metadata)))])
        (tmp_path / "wrong.toml").write_text(f'{entry.name} = "# +"\n')
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "wrong.toml", holder, {})
        (problem,) = caught.value.problems
        assert problem.startswith(f"wrong.toml: {entry.name}: must be {form}, is"), problem


@pytest.mark.parametrize("kind", [AgentSettings, MinerSettings, NetworkSettings, RegistrarSettings, ProvisioningForm])
def test_the_examples_count_in_english(kind: type) -> None:
    """One of a thing is one character, and small numbers are written as people write them."""
    shown = render_example(kind)
    assert not re.search(r"\b1 (characters|entries)\b", shown)
    assert not re.search(r"\d(character|entr)", shown)
    assert not re.search(r"\d[eE][-+]\d", shown)


@pytest.mark.parametrize(
    ("rules", "given_text", "problem"),
    [
        ({"min": 1}, '""', 'must be at least 1 character, is ""'),
        ({"min": 2}, '"a"', 'must be at least 2 characters, is "a"'),
        ({"max": 1}, '"ab"', 'must be at most 1 character, is "ab"'),
        ({"min": 1, "max": 3}, '"abcd"', 'must be 1..3 characters, is "abcd"'),
    ],
)
def test_lengths_are_told_in_english(rules: dict[str, int], given_text: str, problem: str, tmp_path: Path) -> None:
    """The words for a text's length agree with its number."""
    holder = make_dataclass("Holder", [("name", str, field(metadata=rules))])
    (tmp_path / "a.toml").write_text(f"name = {given_text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.toml", holder, {})
    assert caught.value.problems == (f"a.toml: name: {problem}",)
