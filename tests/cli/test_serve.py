from __future__ import annotations

import importlib
import signal
import socket
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from journeyman.cli.app import run
from journeyman.cli.serve import greeting
from journeyman.errors import JourneymanError, SettingError
from journeyman.store.store import Store
from journeyman.types.settings import Retention


def test_nothing_to_serve_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--home", str(tmp_path)]) == 2
    assert "--run RUN" in capsys.readouterr().err


def test_a_run_that_trained_nothing_cannot_be_served(tmp_path: Path, refused: list[JourneymanError]) -> None:
    with Store.open(tmp_path) as store:
        store.runs.create("empty", kind="mcp", base="smollm2-135m")
    assert run(["serve", "--run", "empty", "--home", str(tmp_path)]) == 2
    assert refused[-1].reason == "not_trained"


def test_a_taken_port_is_said_before_the_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["serve", "--base", "smollm2-135m", "--home", str(tmp_path), "--port", str(port)]) == 2
    shown = capsys.readouterr()
    assert f"port {port}" in shown.err
    assert "loading" not in shown.out


def test_an_open_address_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("JOURNEYMAN_API_KEY", raising=False)
    assert run(["serve", "--base", "smollm2-135m", "--home", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "--api-key" in capsys.readouterr().err


def test_the_greeting_is_a_curl_line_that_a_shell_reads_and_never_holds_the_key() -> None:
    lines = greeting("http://127.0.0.1:1", "it's", has_key=True)
    assert "$JOURNEYMAN_API_KEY" in lines[1]
    words = subprocess.run(["sh", "-c", lines[1].replace("curl", "printf '%s|'", 1)], capture_output=True, text=True, check=True)
    assert '"model": "it\'s"' in words.stdout


@pytest.mark.parametrize(
    ("setting", "said"),
    [("retention.adaptors=4", "did you mean 'adapters'"), ("retention.adapters=0", "retention.adapters"), ("grpo.loss=dapo", "grpo")],
)
def test_a_setting_that_a_server_has_not_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    assert run(["serve", "--base", "smollm2-135m", "--home", str(tmp_path), "--set", setting]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "loading" not in shown.out


def test_what_stays_on_disk_is_told_to_the_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def open_backend(base: str, **options: object) -> None:
        given.append(options["retention"])
        raise SettingError("far enough")

    monkeypatch.setattr(importlib.import_module("journeyman.local"), "open_backend", open_backend)
    words = ["serve", "--base", "smollm2-135m", "--home", str(tmp_path), "--port", "0"]
    assert run([*words, "--set", "retention.adapters=4", "--set", "retention.best_is=lowest"]) == 2
    assert run(words) == 2
    assert given == [Retention(adapters=4, best_is="lowest"), Retention()]


@pytest.mark.e2e
def test_a_served_model_answers_and_ctrl_c_ends_it(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-c", "from journeyman.cli import main; main()", "serve", "--base", str(tiny_model)]
    command += ["--home", str(tmp_path), "--port", "0", "--workers", "1"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it otherwise
    )
    assert process.stdout is not None
    try:
        url = next(line.split()[3] for line in process.stdout if line.startswith("serving"))
        with openai.OpenAI(base_url=url, api_key="none", timeout=60, max_retries=0) as client:
            reply = client.chat.completions.create(model="base", messages=[{"role": "user", "content": "hello"}], max_tokens=4)
        assert reply.usage is not None
        assert reply.usage.completion_tokens >= 1
        process.send_signal(signal.SIGINT)
        said, failed = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert (process.returncode, "stopped" in said, failed) == (0, True, "")
