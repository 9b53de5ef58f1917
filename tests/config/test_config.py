"""Settings: where they come from, which stands before which, and what is refused and how."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import limits
from ingot.config import Config, parse_address, parse_size, strange_variables
from ingot.errors import ConfigError


def test_the_defaults_work() -> None:
    config = Config()
    assert config.listen == "127.0.0.1:9000" and config.region == "us-east-1"
    assert config.postgres is None and config.tls_certificate is None
    assert Config.load({}, {}) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.region = "x"  # type: ignore[misc]


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "ingot.toml"
    file.write_text('region = "file"\nlisten = "127.0.0.1:1"\nbatch_mutations = 7\n')
    environ = {"INGOT_REGION": "environ", "INGOT_LISTEN": "127.0.0.1:2", "INGOT_UNRELATED": "x"}
    config = Config.load({"listen": "127.0.0.1:3", "region": None}, environ, str(file))
    assert (config.listen, config.region, config.batch_mutations) == ("127.0.0.1:3", "environ", 7)
    assert Config.load({}, {"INGOT_CONFIG": str(file)}).region == "file"
    assert Config.load({}, {"INGOT_REGION": ""}, str(file)).region == "file"


def test_every_setting_can_come_from_each_source(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "listen": "[::1]:0",
        "metrics_listen": "127.0.0.1:9090",
        "data_dir": "/x",
        "postgres": "postgresql://u@h/d",
        "postgres_statement_cache": 0,
        "region": "eu-1",
        "default_object_ownership": "ObjectWriter",
        "recreate_own_bucket": "idempotent",
        "form_signature_v2": "no",
        "virtual_host_domain": "s3.example.com",
        "credentials": "/c",
        "tls_certificate": "/t",
        "tls_key": "/k",
        "segment_bytes": "32MiB",
        "log_bytes_max": "3GiB",
        "batch_mutations": 5,
        "busy_poll_s": 0.001,
        "lifecycle_debug_day_s": 10.0,
        "seal_age_s": 1.0,
        "unit_age_s": 2.0,
        "warm_bytes": "7MiB",
        "cold_cache_bytes": "17MiB",
        "node_cache_bytes": "8MiB",
        "summary_cache_bytes": "2MiB",
        "connections_max": 9,
        "header_deadline_s": 1.5,
        "idle_deadline_s": 2,
        "body_stall_s": 3,
        "send_stall_s": 4,
        "stop_deadline_s": 5,
        "log_level": "debug",
        "forge_upload_did": "did:web:up.example",
        "forge_upload_url": "https://up.example",
        "forge_receipts_url": "https://up.example/r",
        "forge_indexer_did": "did:web:indexer.example",
        "forge_indexer_url": "https://indexer.example",
        "forge_home_node": "did:web:node.example",
        "forge_space": "did:web:space.example",
        "forge_key": "/a.pem",
        "forge_private_addresses": "yes",
        "forge_dev": "no",  # as others name a network
    }
    assert set(values) == {setting.name for setting in dataclasses.fields(Config)}
    direct = Config(**values)
    assert direct.segment_bytes == 32 * limits.MIB and direct.stop_deadline_s == 5.0
    file = tmp_path / "all.toml"
    file.write_text(
        "".join(
            f'{name} = "{value}"\n' if isinstance(value, str) else f"{name} = {value}\n"
            for name, value in values.items()
        )
    )
    environ = {f"INGOT_{name.upper()}": str(value) for name, value in values.items()}
    assert Config.load({}, {}, str(file)) == direct
    assert Config.load({}, environ) == direct
    assert Config.load(values, {}) == direct


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "9000"),
        ("listen", "host:99999"),
        ("listen", "::1:9000"),
        ("listen", 9000),
        ("data_dir", ""),
        ("data_dir", None),
        ("data_dir", "a\0b"),
        ("postgres", "host=db"),
        ("postgres", "mysql://x"),
        ("region", "a b"),
        ("region", ""),
        ("default_object_ownership", "Nobody"),
        ("recreate_own_bucket", "always"),
        ("form_signature_v2", "maybe"),
        ("virtual_host_domain", ".example.com"),
        ("virtual_host_domain", "example.com:9000"),
        ("virtual_host_domain", "127.0.0.1"),
        ("virtual_host_domain", ""),
        ("segment_bytes", "64 potatoes"),
        ("segment_bytes", "1KiB"),
        ("segment_bytes", "300MiB"),
        ("segment_bytes", True),
        ("segment_bytes", 1.5),
        ("batch_mutations", 0),
        ("batch_mutations", "many"),
        ("connections_max", -1),
        ("header_deadline_s", "soon"),
        ("header_deadline_s", "nan"),
        ("header_deadline_s", float("inf")),
        ("idle_deadline_s", -1),
        ("log_level", "loud"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: "):
        Config(**{name: value})  # type: ignore[arg-type]


def test_the_source_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ingot.toml"
    file.write_text("batch_mutations = 0\n")
    for arguments, environ, path, name in (
        ({"batch_mutations": "0"}, {}, None, "--batch-mutations: "),
        ({}, {"INGOT_BATCH_MUTATIONS": "x"}, None, "INGOT_BATCH_MUTATIONS: "),
        ({}, {}, str(file), f"{file}: batch_mutations: "),
    ):
        with pytest.raises(ConfigError) as caught:
            Config.load(arguments, environ, path)
        assert str(caught.value).startswith(name)


def test_a_password_in_a_wrong_dsn_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(postgres="mysql://me:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_name_in_the_file_lists_the_known(tmp_path: Path) -> None:
    file = tmp_path / "ingot.toml"
    file.write_text('regoin = "x"\n')
    with pytest.raises(ConfigError, match=r"unknown 'regoin'; known are listen, .*region.*"):
        Config.load({}, {}, str(file))


@pytest.mark.parametrize("content", [b"region =", b"\xff\xfe", b"[[["])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ingot.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not TOML"):
        Config.load({}, {}, str(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Config.load({}, {}, str(tmp_path / "missing.toml"))


def test_a_certificate_needs_its_key() -> None:
    for name in ("tls_certificate", "tls_key"):
        with pytest.raises(ConfigError, match="go together"):
            Config(**{name: "/x"})  # type: ignore[arg-type]


def test_what_the_parts_are_given() -> None:
    config = Config(connections_max=5, idle_deadline_s=1, segment_bytes="2MiB")  # type: ignore[arg-type]
    assert config.http_limits().connections_max == 5
    assert config.http_limits().idle_deadline_s == 1.0
    assert config.segment_settings().seal_bytes == 2 * limits.MIB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
        (":9000", ("0.0.0.0", 9000)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        (" 64 M ", 64 << 20),
        ("64MB", 64_000_000),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("9007199254740993", 9007199254740993),  # not through a float
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        assert "is not a size" in str(error)


@given(st.dictionaries(st.sampled_from([s.name for s in dataclasses.fields(Config)]), st.text()))
def test_any_arguments_give_a_config_or_a_config_error(arguments: dict[str, str]) -> None:
    try:
        Config.load(arguments, {})
    except ConfigError as error:
        assert str(error)


def test_the_log_has_room_for_its_segments_and_makes_it_in_time() -> None:
    with pytest.raises(ConfigError, match="log_bytes_max: 63MiB is out of range: at least 8 seg"):
        Config(segment_bytes=8 * limits.MIB, log_bytes_max=63 * limits.MIB)
    config = Config(segment_bytes=limits.MIB, log_bytes_max=8 * limits.MIB)
    assert config.warm_budget == 6 * limits.MIB
    assert config.log_reserve == 4 * limits.MIB
    assert Config(warm_bytes=6 * limits.MIB).warm_budget == 6 * limits.MIB


def test_a_misspelt_variable_is_named_with_the_nearest_known_one() -> None:
    environ = {"INGOT_WRAM_BYTES": "1GiB", "INGOT_QQQQ": "x", "INGO_REGION": "y"}
    assert strange_variables(environ) == [
        "INGOT_QQQQ means nothing",
        "INGOT_WRAM_BYTES means nothing; is it INGOT_WARM_BYTES?",
    ]
    known = {f"INGOT_{setting.name.upper()}": "" for setting in dataclasses.fields(Config)}
    assert strange_variables(known) == []


def test_every_variable_that_the_sources_read_is_known() -> None:
    root = Path(__file__).parents[2]
    files = [root / "setup.py", root / "README.md", *(root / "perf").glob("*.py")]
    files += [*(root / "perf").glob("*.md"), *(root / ".ci").glob("*"), *root.glob("ingot/*.md")]
    files += root.glob("ingot/**/*.py")
    read = {name for file in files for name in re.findall(r"INGOT_[A-Z_]*[A-Z]", file.read_text())}
    assert strange_variables(dict.fromkeys(read - {"INGOT_NAME"}, "")) == []
