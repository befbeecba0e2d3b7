"""`journeyman data preview` shows what is trained, in colour and without, and says of bad data what is wrong with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from journeyman.chat.renderer import Renderer
from journeyman.cli.app import run
from journeyman.cli.data import render_all, show_examples
from journeyman.data import sft_examples
from journeyman.errors import JourneymanError

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "id": 1}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def write(folder: Path, *rows: dict[str, Any] | str) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def preview(capsys: pytest.CaptureFixture[str], base: Path, *words: str) -> str:
    assert run(["data", "preview", *words, "--base", str(base)]) == 0
    return capsys.readouterr().out


def test_without_colours_what_is_trained_stands_between_marks(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(capsys, tiny_model, write(tmp_path, CHAT))
    assert "messages" in out.splitlines()[0]
    assert "id" in out.splitlines()[0]
    assert "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧" in out
    assert re.search(r"\d+ tokens, \d+ of them trained \(\d+\.\d%\)", out)


def test_colours_tell_given_from_trained_and_show_the_end_token(tiny_tokenizer: Any) -> None:
    from io import StringIO

    from journeyman.cli.console import Terminal

    out = StringIO()
    console = Terminal(file=out, force_terminal=True, color_system="standard", width=200, no_color=False)
    renderer = Renderer(tiny_tokenizer, 512)
    rendered, _ = render_all(sft_examples([CHAT]), renderer)
    show_examples(console, rendered, renderer, by_token=False, is_full=False)
    text = out.getvalue()
    assert "\x1b[1;32mhello\x1b[0m\x1b[1;37;42m<|im_end|>\x1b[0m" in text
    assert "\x1b[2m<|im_start|>user" in text
    assert "⟦" not in text


def test_both_sides_of_a_pair_are_shown(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(capsys, tiny_model, write(tmp_path, {"prompt": "2+2=", "chosen": "4", "rejected": "5"}))
    assert re.search(r"pair 1, chosen.*\n2\+2=⟦4<", out)
    assert re.search(r"pair 1, rejected.*\n2\+2=⟦5<", out)


def test_token_by_token_spaces_and_line_ends_are_seen(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(capsys, tiny_model, write(tmp_path, {"prompt": "a\n", "completion": "b c"}), "--tokens")
    assert "a│⏎\n│⟦b│·│c│<|im_end|>│⟧" in out


def test_a_long_given_text_is_cut_in_the_middle_unless_all_is_asked_for(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, {"prompt": "x" * 1000, "completion": "y" * 1000})
    out = preview(capsys, tiny_model, path)
    assert f"{'x' * 300} […400 characters…] {'x' * 300}⟦{'y' * 1000}" in out
    assert "x" * 1000 in preview(capsys, tiny_model, path, "--full")


def test_a_data_set_cannot_steer_the_terminal(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(capsys, tiny_model, write(tmp_path, {"text": "a\x1b[2Jb\rc [red]d"}))
    assert "\x1b" not in out
    assert r"⟦a\x1b[2Jb\rc [red]d" in out


def test_what_would_be_refused_is_counted_and_named(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(capsys, tiny_model, write(tmp_path, CHAT, *[{"text": "a" * 9000}] * 7, "{"), "--format", "text", "--skip-bad")
    assert [int(number) for number in re.findall(r"rows\.jsonl, line (\d)", out)] == [1, 9, 2, 3, 4, 5, 6]
    assert "9001 tokens" in out
    assert "2 more" in out


def test_only_some_rows_are_read_and_shown_and_it_says_so(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, *[{"text": f"text {number}"} for number in range(5)])
    out = preview(capsys, tiny_model, path, "--limit", "3", "--rows", "2")
    assert "--limit 0" in out
    assert ("text 1" in out, "text 2" in out) == (True, False)
    assert json.loads(preview(capsys, tiny_model, path, "--limit", "0", "--json"))["num_rows"] == 5


def test_columns_may_be_named(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: list[JourneymanError]) -> None:
    path = write(tmp_path, {"q": "hi", "a": "hello"})
    found = json.loads(preview(capsys, tiny_model, path, "--column", "instruction=q", "--column", "output=a", "--json"))
    assert (found["format"], found["used"]) == ("alpaca", ["instruction", "output"])
    assert run(["data", "preview", path, "--base", str(tiny_model), "--column", "q"]) == 2
    assert refused[-1].reason == "no_column"


def test_as_json_it_is_json(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(preview(capsys, tiny_model, write(tmp_path, CHAT), "--json"))
    assert (found["format"], found["num_examples"], found["num_bad"]) == ("messages", 1, 0)
    (example,) = found["examples"]
    assert len(example["token_ids"]) == len(example["is_trained"]) == found["num_tokens"]
    assert example["spans"][-1] == {"text": "hello<|im_end|>", "is_trained": True}
    assert found["length_min"] == found["length_max"] == found["num_tokens"]


@pytest.mark.parametrize("rows", [[{"messages": []}], [], ["{"], ["[1]"]])
def test_bad_rows_are_wrong_input_and_named(tiny_model: Path, tmp_path: Path, rows: list[Any], refused: list[JourneymanError]) -> None:
    assert run(["data", "preview", write(tmp_path, *rows), "--base", str(tiny_model)]) == 2
    assert "rows.jsonl" in refused[-1].message
    assert ("line 1" in refused[-1].message) is bool(rows)


def test_a_file_that_is_not_there_is_wrong_input_and_named(tmp_path: Path, refused: list[JourneymanError]) -> None:
    assert run(["data", "preview", str(tmp_path / "gone.jsonl")]) == 2
    assert "gone.jsonl" in refused[-1].message


def test_lengths_are_given_from_the_shortest_to_the_longest(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, *[{"text": "a" * number} for number in range(1, 12)])
    found = json.loads(preview(capsys, tiny_model, path, "--json"))
    names = ("length_min", "length_median", "length_90_percent", "length_max")
    shortest = found["length_min"]
    assert [found[name] - shortest for name in names] == [0, 5, 9, 10]
    assert found["num_tokens"] == 11 * (shortest + 5)
