from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.export.runs import RUN, make_run

from journeyman.cli.app import run


@pytest.fixture
def home(sharp_model: Path, tmp_path: Path) -> Path:
    make_run(tmp_path, sharp_model)
    return tmp_path


def test_the_command_says_where_the_export_is_how_it_was_checked_and_how_it_is_used(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", RUN, "--home", str(home), "--step", "0", "--out", str(home / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"time@0 is in {home / 'out'}" in shown
    assert "greedy tokens equal on" in shown
    assert f"PeftModel.from_pretrained(base, '{home / 'out'}')" in shown
    assert f"--lora-modules time-step0={home / 'out'}" in shown
    assert "Step 0 is untrained" in shown
    assert (home / "out" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no-such-run"], "no run 'no-such-run'"),
        ([RUN, "--step", "9"], "no step 9"),
        ([RUN, "--format", "onnx"], "peft"),
        ([RUN, "--quant", "q8_0"], "quant is of GGUF files"),
        ([RUN, "--format", "gguf", "--quant", "q4"], "q8_0"),
        ([RUN, "--public"], "--push"),
        ([RUN, "--push", "nowhere"], "no name of a repository"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_loaded(
    home: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *words, "--home", str(home), "--out", str(home / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (home / "out").exists()


@pytest.mark.parametrize("words", [["--format", "onnx"], ["--format", "gguf", "--quant", "q9"]], ids=" ".join)
def test_an_unknown_format_or_quantisation_is_refused_before_torch_is_loaded_with_those_there_are(words: list[str]) -> None:
    code = "import sys; from journeyman.cli.app import run; code = run(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    command = [sys.executable, "-c", code, "export", RUN, *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2, result.stderr
    assert "what to do: --format peft, merged or gguf; --quant f16 or q8_0" in result.stderr


def test_a_missing_home_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", RUN, "--home", str(tmp_path / "none")]) == 2
    assert "no home folder" in capsys.readouterr().err
