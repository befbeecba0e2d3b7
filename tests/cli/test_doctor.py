from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from journeyman.cli import doctor
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


@pytest.mark.parametrize("place", ["home", "."])
def test_doctor_changes_nothing(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["doctor", "--home", str(tmp_path / place), "--port", "0"])
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_found_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finding = doctor.free_port(port)
    assert (finding.state, str(port) in finding.found) == ("note", True)


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_a_port_that_cannot_be_is_wrong_input(tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--home", str(tmp_path), "--port", port]) == 2
    assert "--port" in capsys.readouterr().err


@pytest.mark.parametrize(("gigabytes", "state"), [(2.0, "broken"), (6.0, "note"), (9.0, "fine")])
def test_free_memory_is_held_against_what_a_run_takes(monkeypatch: pytest.MonkeyPatch, gigabytes: float, state: str) -> None:
    memory = SimpleNamespace(available=gigabytes * doctor.GIGABYTE, total=16 * doctor.GIGABYTE)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert doctor.memory().state == state


@pytest.mark.parametrize(("place", "state"), [("new/below", "fine"), (".", "fine"), ("file", "broken"), ("file/below", "broken")])
def test_a_folder_is_judged_by_what_is_there_already(tmp_path: Path, place: str, state: str) -> None:
    (tmp_path / "file").touch()
    assert doctor.folder(tmp_path / place, 0.0).state == state


def test_a_full_disk_is_broken(tmp_path: Path) -> None:
    finding = doctor.folder(tmp_path, 1e12)
    assert finding.state == "broken"
    assert finding.advice


def test_a_store_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    (tmp_path / "journeyman.db").write_text("this is no database" * 100)
    finding = doctor.finding_of(lambda: doctor.stored_runs(tmp_path))
    assert finding.state == "broken"
    assert finding.advice


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "\udcff"])
def test_a_number_of_processes_that_is_none_is_broken(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("JOURNEYMAN_ENGINE_PROCESSES", value)
    finding = doctor.finding_of(doctor.processor)
    assert finding.state == "broken"
    assert finding.advice


def test_a_library_that_is_missing_is_broken_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    finding = doctor.finding_of(doctor.memory)
    assert (finding.state, "pip install" in finding.advice) == ("broken", True)


def test_an_empty_cache_is_a_note_with_the_command_that_fills_it(tmp_path: Path) -> None:
    finding = doctor.base_models(tmp_path)
    assert (finding.state, "journeyman models fetch" in finding.advice) == ("note", True)


def test_keys_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert "OPENAI_API_KEY" in doctor.keys().found
    assert "secret" not in doctor.keys().found


def test_every_key_that_cannot_be_sent_is_named_and_none_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = {"OPENAI_API_KEY": "“secret-1”", "GEMINI_API_KEY": "'secret-2'", "OLLAMA_API_KEY": " ", "HUGGING_FACE_HUB_TOKEN": "secret\n-3"}
    for name, value in {**faulty, "OPENROUTER_API_KEY": "fine-4"}.items():
        monkeypatch.setenv(name, value)
    finding = doctor.keys()
    assert finding.state == "note"
    assert [name for name in (*faulty, "OPENROUTER_API_KEY") if finding.found.count(name) == 2] == [*faulty]
    assert "secret" not in finding.found + finding.advice


def test_every_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"HTTP_PROXY": "ftp://a", "HTTPS_PROXY": "http://b:3128", "ALL_PROXY": "nonsense://c"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    finding = doctor.proxies()
    assert finding.state == "note"
    assert [name for name in given if finding.found.count(name) == 2] == ["HTTP_PROXY", "ALL_PROXY"]


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("nonsense", None)])
def test_the_quota_of_a_container_is_read(tmp_path: Path, text: str, cores: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert doctor.core_quota(tmp_path / "cpu.max") == cores


@pytest.mark.parametrize(("fastest", "state"), [("cpu", "fine"), ("cuda", "note")])
def test_a_gpu_that_training_leaves_alone_is_named(monkeypatch: pytest.MonkeyPatch, fastest: str, state: str) -> None:
    monkeypatch.setattr(devices, "choose_device", lambda: fastest)
    finding = doctor.torch_device()
    assert (finding.state, "trains and serves on cpu" in finding.found) == (state, True)
    assert ("cuda" in finding.found) is ("cuda" in finding.advice) is (fastest == "cuda")
