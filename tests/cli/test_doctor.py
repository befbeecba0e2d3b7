from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from journeyman.cli import doctor as checks
from journeyman.cli.app import run
from journeyman.modeling import devices


def test_doctor_reports_everything_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["doctor", "--home", str(tmp_path), "--port", "0", "--json"])
    shown = json.loads(capsys.readouterr().out)
    names = [check["name"] for check in shown["checks"]]
    assert {"Python", "torch", "processor", "memory", "home", "model cache", "base models", "port"} <= set(names)
    assert code == (0 if shown["is_fine"] else 1)


def test_doctor_for_people_ends_with_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--home", str(tmp_path), "--port", "0"])
    assert capsys.readouterr().out.splitlines()[-1] in ("This machine can train.", "Something is missing; see above.")


def test_doctor_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--home", str(tmp_path / "home"), "--port", "0"])
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_found_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        check = checks.check_port(taken.getsockname()[1])
    assert (check.state, "cannot be taken" in check.found) == ("note", True)


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_cannot_be_is_wrong_input(tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--home", str(tmp_path), "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(("gigabytes", "state"), [(2.0, "broken"), (6.0, "note"), (9.0, "fine")])
def test_free_memory_is_held_against_what_a_run_takes(monkeypatch: pytest.MonkeyPatch, gigabytes: float, state: str) -> None:
    memory = SimpleNamespace(available=gigabytes * checks._GIGABYTE, total=16 * checks._GIGABYTE)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert checks.check_memory().state == state


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert checks.check_folder("home", tmp_path / "a" / "b", 0.0).state == "fine"


def test_a_full_disk_is_broken(tmp_path: Path) -> None:
    check = checks.check_folder("home", tmp_path, 1e12)
    assert (check.state, "make room" in check.advice) == ("broken", True)


def test_a_store_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    (tmp_path / "journeyman.db").write_text("this is no database" * 100)
    check = checks.check_store(tmp_path)
    assert check.state == "broken"
    assert check.advice


def test_an_empty_cache_is_a_note_with_the_command_that_fills_it(tmp_path: Path) -> None:
    check = checks.check_models(tmp_path)
    assert (check.state, "journeyman models fetch" in check.advice) == ("note", True)


def test_keys_are_named_and_never_shown() -> None:
    check = checks.check_keys({"OPENAI_API_KEY": "sk-secret"})
    assert "OPENAI_API_KEY" in check.found
    assert "secret" not in check.found


def test_every_key_that_cannot_be_sent_is_named_and_none_is_shown() -> None:
    keys = {"OPENAI_API_KEY": "“secret-1”", "HF_TOKEN": "secret\n-2", "GEMINI_API_KEY": "'secret-3'", "OPENROUTER_API_KEY": "fine-4"}
    check = checks.check_keys(keys)
    text = check.found.partition(": ")[2] + check.advice
    assert check.state == "note"
    assert [name for name in keys if text.count(name) == 2] == ["OPENAI_API_KEY", "HF_TOKEN", "GEMINI_API_KEY"]
    assert "secret" not in text


def test_every_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HTTP_PROXY": "ftp://a", "HTTPS_PROXY": "http://b:3128", "ALL_PROXY": "nonsense://c"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    check = checks.check_proxies()
    assert check.state == "note"
    assert [name for name in given if check.found.count(name) == 2] == ["HTTP_PROXY", "ALL_PROXY"]


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("nonsense", None)])
def test_the_quota_of_a_container_is_read(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert checks.core_quota(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize(("fastest", "state"), [("cpu", "fine"), ("cuda", "note")])
def test_a_gpu_that_training_leaves_alone_is_told(monkeypatch: pytest.MonkeyPatch, fastest: str, state: str) -> None:
    monkeypatch.setattr(devices, "choose_device", lambda: fastest)
    check = checks.check_torch()
    assert (check.state, "trains and serves on cpu" in check.found) == (state, True)
    assert ("cuda" in check.found) is ("cuda" in check.advice) is (fastest == "cuda")
