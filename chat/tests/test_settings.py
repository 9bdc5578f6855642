from __future__ import annotations

from pathlib import Path

import pytest

from mmgen.errors import SettingsError
from mmgen_chat.settings import Settings, read_settings, settings_path

WHOLE = """
model = "mini"
endpoint = "http://localhost:8000/v1"
api_key_env = "MY_KEY"
database = "talks.db"
previews_per_second = 5
leave_out_old_turns = false
allowed_hosts = ["Images.Example.org"]

[defaults]
guidance = 2.5
size = "64x64"
n = 2

[keys]
stop = "escape,ctrl+x"
send = "enter"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "chat.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_all_is_as_it_was(home: Path) -> None:
    assert settings_path().is_relative_to(home)
    settings = read_settings()
    assert settings == Settings()
    assert settings.database.is_relative_to(home)


def test_every_setting_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read_settings(written(tmp_path, WHOLE), actions=["send", "stop"])
    assert settings.endpoint == "http://localhost:8000/v1"
    assert settings.database == tmp_path / "talks.db"
    assert settings.controls.guidance == 2.5
    assert settings.controls.size == (64, 64)
    assert settings.controls.n == 2
    assert dict(settings.keys) == {"stop": "escape,ctrl+x", "send": "enter"}
    assert settings.allowed_hosts == {"images.example.org"}
    assert not settings.leave_out_old_turns
    assert settings.api_key is None
    monkeypatch.setenv("MY_KEY", "hush")
    assert settings.api_key == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "mini"', "did you mean 'model'"),
        ("[defaults]\nguidence = 2", "did you mean 'guidance'"),
        ("[defaults]\nguidance = -2", "guidance is a number of 0 or more"),
        ("[defaults]\nguidance = true", "guidance is a number of 0 or more, got True"),
        ('[keys]\nsned = "enter"', "did you mean 'send'"),
        ("[keys]\nsend = 3", "must be a key"),
        ('[keys]\nsend = "enter"\nstop = "escape, enter"', "both send and stop"),
        ('keys = "enter"', "write \\[keys\\]"),
        ('api_key = "hush"', "environment variable"),
        ('endpoint = "localhost:8000"', "must be an address"),
        ("previews_per_second = 1000", "from 0 to 60"),
        ('leave_out_old_turns = "no"', "true or false"),
        ('allowed_hosts = "example.org"', "must be a list"),
        ("model = ", "is not TOML"),
        ("zzz = 1", "there are model"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as caught:
        read_settings(path, actions=["send", "stop"])
    assert str(path) in str(caught.value)
    assert "hush" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no settings file"):
        read_settings(tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match="cannot read"):
        read_settings(tmp_path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b'model = "\xe9"')
    with pytest.raises(SettingsError, match="not TOML"):
        read_settings(path)
