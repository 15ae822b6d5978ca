"""API keys: made, hashed at rest, recognised."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.access.keys import Key, add_key, find_key, read_keys
from gateway.key import main
from gateway.settings import SettingsError


def test_the_file_holds_hashes_and_only_its_owner_reads_it(tmp_path: Path):
    file = tmp_path / "keys"
    keys = [add_key(file, "page"), add_key(file, "robot.2")]
    assert len(set(keys)) == 2
    assert all(len(key) == 43 and key not in file.read_text() for key in keys)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(read_keys(file).values()) == [Key("page"), Key("robot.2")]


def test_a_request_with_a_key_is_recognised(tmp_path: Path):
    key = add_key(tmp_path / "keys", "page")
    keys = read_keys(tmp_path / "keys")
    assert find_key({"authorization": f"Bearer {key}"}, keys)
    assert find_key({"authorization": f"BEARER  {key} "}, keys)
    assert find_key({"x-api-key": key}, keys)
    for value in ("", "Bearer", "Bearer ", f"Basic {key}", key, f"Bearer {key}x", "Bearer \udcff"):
        assert not find_key({"authorization": value}, keys)
    assert not find_key({}, keys)
    hashed = next(iter(keys))
    assert not find_key({"x-api-key": hashed}, keys)


@pytest.mark.parametrize("name", ["", "a b", "x" * 41, "a\nb", "ä"])
def test_a_name_that_does_not_fit_a_line_is_refused(tmp_path: Path, name: str):
    with pytest.raises(SettingsError, match="it must be 1 to 40 letters"):
        add_key(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()


def test_a_name_is_used_once(tmp_path: Path):
    add_key(tmp_path / "keys", "page")
    with pytest.raises(SettingsError, match="has a key called page already"):
        add_key(tmp_path / "keys", "page")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("# only a comment\n\n", "holds no key"),
        ("page secret\n", "line 1 is not a name, a hash and perhaps a rate"),
        (f"page {'0' * 64}\n{'0' * 64}\n", "line 2 is not"),
        (f"page {'0' * 64} fast\n", "line 1 is not"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_keys(tmp_path / "keys")


def test_the_command_prints_the_key_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "keys"
    assert main(["page", "--file", str(file)]) == 0
    printed = capsys.readouterr()
    key = printed.out.strip()
    assert find_key({"x-api-key": key}, read_keys(file))
    assert f"GATEWAY_KEYS={file}" in printed.err
    assert main(["page", "--file", str(file)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["page", "--file", str(tmp_path / "no" / "keys")]) == 1


def test_a_key_may_have_a_rate_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "keys"
    for name, rate in (("free", "0"), ("slow", "0.00025"), ("fast", "1500")):
        assert main([name, "--file", str(file), "--rate", rate]) == 0
    assert list(read_keys(file).values()) == [
        Key("free", 0),
        Key("slow", 0.00025),
        Key("fast", 1500),
    ]
    for rate in ("-1", "nan", "inf"):
        assert main(["other", "--file", str(file), f"--rate={rate}"]) == 1
    assert "it must be a number of pictures a second from 0" in capsys.readouterr().err
    assert len(read_keys(file)) == 3
