"""The study of exports: a row a format of one run, made once, with every check; and the table of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.studies import exports
from benchmarks.studies.exports import FORMATS, ExportRow, table
from benchmarks.studies.in_vllm import IN_VLLM
from benchmarks.studies.lines import LineFile
from benchmarks.study import main
from tests.export.runs import MODEL, RUN, make_run
from tests.tiny import write_adapter

from journeyman.errors import AdapterError
from journeyman.export import export
from journeyman.export.gguf_check import HOW_TO_GET, IN_LLAMA_CPP, is_available
from journeyman.store.models import AdapterRow
from journeyman.store.store import Store

FAKE = [sys.executable, "-c", "import sys; sys.exit(3)"]


@pytest.fixture
def words(sharp_model: Path, tmp_path: Path) -> list[str]:
    make_run(tmp_path / "home", sharp_model)
    return ["export", "--run", RUN, "--home", str(tmp_path / "home"), "--docs", str(tmp_path / "docs")]


def rows_of(folder: Path) -> list[ExportRow]:
    return LineFile(folder / "docs" / "studies" / "export.jsonl", ExportRow).read()


def test_formats_that_need_no_llama_cpp_leave_a_row_each_and_are_made_once(
    words: list[str], tmp_path: Path, sharp_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--only", "peft", "merged"]
    assert main([*words, *chosen]) == 0
    peft, merged = rows_of(tmp_path)
    assert (peft.format, merged.format, peft.state, peft.version) == ("peft", "merged", "done", f"{MODEL}@3")
    assert peft.num_tokens > 20
    assert peft.agreement is not None
    assert peft.agreement + peft.num_ties / peft.num_tokens == 1.0
    assert merged.megabytes is not None
    assert merged.megabytes > 0
    assert not list((tmp_path / "home" / "export" / "files").iterdir())
    assert main([*words, *chosen]) == 0
    assert "2 of them made before" in capsys.readouterr().out
    assert len(rows_of(tmp_path)) == 2

    # Another version is another subject.
    folder = tmp_path / "home" / "runs" / RUN / "adapters" / f"{MODEL}@4"
    with Store.open(tmp_path / "home") as store:
        store.models.add_adapter(AdapterRow(RUN, MODEL, 4, folder, write_adapter(sharp_model, folder, seed=9)))
    assert main([*words, "--only", "peft"]) == 0
    assert [row.version for row in rows_of(tmp_path)] == [f"{MODEL}@3", f"{MODEL}@3", f"{MODEL}@4"]


@pytest.mark.skipif(not is_available(), reason=f"no llama.cpp here: {HOW_TO_GET}")
@pytest.mark.timeout(300)
def test_a_gguf_file_is_run_in_llama_cpp(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--only", "gguf-q8_0"]) == 0
    (row,) = rows_of(tmp_path)
    assert row.measured[IN_LLAMA_CPP] >= 0.75
    assert main([*words, "--show"]) == 0
    out = capsys.readouterr().out
    assert f"| {row.measured[IN_LLAMA_CPP]:.1%} |" in out
    assert "Not made yet: peft, merged, merged-bfloat16, gguf-f16." in out


def test_a_refused_export_is_a_row_with_its_error_and_is_tried_again(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AdapterError("the exported adapter does not answer as the served version does")

    with monkeypatch.context() as patch:
        patch.setattr(export, "export_run", refuse)
        assert main([*words, "--only", "peft"]) == 1
    (row,) = rows_of(tmp_path)
    assert (row.state, row.error) == ("failed", "the exported adapter does not answer as the served version does")
    assert "refused: the exported adapter" in table([row])
    assert main([*words, "--only", "peft"]) == 0
    assert [row.state for row in rows_of(tmp_path)] == ["failed", "done"]


def test_without_llama_cpp_the_study_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exports, "is_available", lambda: False)
    assert main(words) == 2
    assert HOW_TO_GET in capsys.readouterr().out
    assert rows_of(tmp_path) == []


def test_without_a_run_one_is_trained_once_under_its_settings(
    tmp_path: Path, sharp_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["export", "--home", str(tmp_path), "--docs", str(tmp_path / "docs"), "--only", "peft", "--seeds", "1", "--set", "steps=1"]
    assert main(given, command=FAKE) == 2
    assert "training sft.yaml ended with code 3" in capsys.readouterr().out
    asked = [sys.executable, "-c", f"import json, sys; json.dump(sys.argv[1:], open({str(tmp_path / 'asked')!r}, 'w'))"]
    subject = exports.trained_subject(tmp_path / "export", ["steps=1"], 1, asked, 60.0)
    command = json.loads((tmp_path / "asked").read_text())
    assert command[:4] == ["train", "sft.yaml", "--set", "steps=1"]
    assert command[command.index("--run") + 1] == subject.run
    # What that command would have left: then nothing is trained.
    make_run(tmp_path / "export", sharp_model, run=subject.run)
    with Store.open(tmp_path / "export") as store:
        store.runs.update(subject.run, state="done")
    assert main(given, command=FAKE) == 0
    assert [row.run for row in rows_of(tmp_path)] == [subject.run]
    assert exports.trained_subject(tmp_path / "other", ["steps=2"], 1, asked, 60.0).run != subject.run


def test_what_a_study_would_ignore_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--jobs", "2"]) == 2
    assert main([*words, "--set", "steps=1"]) == 2
    assert main(["mcp", "--run", "time-1"]) == 2
    assert main([*words, "--only", "gguf-q4"]) == 2
    assert f"it has {', '.join(FORMATS)}" in capsys.readouterr().out


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for a Python that has the fake of tests/benchmarks/fake_vllm as its vLLM."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "fake_vllm"), prepend=os.pathsep)
    return ["--vllm", sys.executable]


@pytest.mark.timeout(300)
def test_exports_made_before_are_made_again_to_be_loaded_in_vllm_by_the_printed_line(
    words: list[str], vllm: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--only", "peft"]) == 0
    for _ in range(2):
        assert main([*words, *vllm, "--only", "peft", "merged-bfloat16"]) == 0
    before, peft, merged = rows_of(tmp_path)
    assert IN_VLLM not in before.measured
    assert peft.measured[IN_VLLM] == peft.agreement
    assert 0.9 <= merged.measured[IN_VLLM] <= 1.0
    capsys.readouterr()
    assert main([*words, "--show"]) == 0
    assert "| in llama.cpp | in vLLM | MB |" in capsys.readouterr().out


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("broken", "before it was ready: no such device"),
        ("forgetful", "vLLM renders '<|im_start|>system"),
        ("confused", "not the version that it was made of in vLLM: 0 of "),
    ],
)
def test_a_vllm_that_does_not_start_or_renders_or_answers_otherwise_fails_the_export(
    fault: str, message: str, words: list[str], vllm: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", fault)
    assert main([*words, *vllm, "--only", "merged"]) == 1
    (row,) = rows_of(tmp_path)
    assert row.state == "failed"
    assert message in (row.error or "")


def test_a_python_without_vllm_is_refused_before_anything_is_exported(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--vllm", str(tmp_path / "python")]) == 2
    assert "cannot be run" in capsys.readouterr().out
    assert main([*words, "--vllm", sys.executable]) == 2
    assert "has no vLLM" in capsys.readouterr().out
    assert main(["mcp", "--vllm", sys.executable]) == 2
    assert rows_of(tmp_path) == []
