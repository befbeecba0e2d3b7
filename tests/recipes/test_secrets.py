"""Secrets are planted wherever one can be given; afterwards they are in no file, no answer and no output."""

from __future__ import annotations

import shlex
import sys
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.export.runs import make_run
from tests.llm_server import Answer, serve
from tests.recipes.backend import FakeModel
from tests.recipes.conftest import SERVER
from tests.rewards.test_ruler import judge_by

from journeyman import redaction
from journeyman.cli.app import run
from journeyman.server.app import Server, create_app
from journeyman.store.store import Store
from journeyman.types.runs import RunInfo

SMALL = (
    "steps=1", "num_train=8", "num_heldout=4", "warm_start.max_updates=0", "warm_start.probe_scenarios=2", "warm_start.probe_attempts=2",
    "rollouts.groups_per_step=2", "rollouts.group_size=2", "rollouts.max_refills=0", "rollouts.max_tokens=400", "rollouts.max_turns=2",
)  # fmt: skip
PLACES = (
    "argument", "assigned", "header-argument", "url-password", "url-parameter", "env", "reference", "judge-password", "judge-key",
    "provider-key", "hf-token", "server-key",
)  # fmt: skip
MARKERS = {place: f"planted-{number}-{place}-x7Qz" for number, place in enumerate(PLACES)}


class Ran:
    """Runs commands, and keeps all they said."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._capsys, self.said = home, capsys, ""

    def __call__(self, *words: str) -> int:
        code = run([*words, "--home", str(self.home)])
        shown = self._capsys.readouterr()
        self.last = shown.out + shown.err
        self.said += self.last
        return code

    @property
    def info(self) -> RunInfo:
        with Store.open(self.home) as store:
            return store.runs.list()[-1]


@pytest.fixture
def ran(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Ran]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    known = dict(redaction._secrets)
    yield Ran(tmp_path / "home", capsys)
    redaction._secrets.clear()
    redaction._secrets.update(known)


def command(**given: str) -> str:
    one = MARKERS | given
    return shlex.join(
        [
            sys.executable, str(SERVER), "--token", one["argument"], f"--api-key={one['assigned']}",
            "-H", f"Authorization: Bearer {one['header-argument']}", f"postgres://me:{one['url-password']}@db/x?sslkey={one['url-parameter']}",
        ]
    )  # fmt: skip


def settings(*names: str) -> list[str]:
    return [word for name in names for word in ("--set", name)]


def found(where: Path, said: str = "") -> dict[str, list[str]]:
    """Which secrets are where."""
    texts = {str(path.relative_to(where)): path.read_bytes() for path in where.rglob("*") if path.is_file()} | {"said": said.encode()}
    return {
        place: names for place, marker in MARKERS.items() if (names := [name for name, text in texts.items() if marker.encode() in text])
    }


def answers(home: Path, model: FakeModel, key: str) -> str:
    """What the server tells of its runs."""
    backend = model.open("fake-model", home=home)
    with Server(create_app(backend, api_key=key), api_key=key) as server:
        bodies = []
        for path in ("api/runs", "v1/models", f"api/runs/{backend.store.runs.list()[-1].id}"):
            request = urllib.request.Request(f"{server.url}/{path}", headers={"Authorization": f"Bearer {key}"})
            with urllib.request.urlopen(request, timeout=20) as response:
                bodies.append(response.read().decode())
    return "\n".join(bodies)


def test_a_run_keeps_no_secret_that_it_was_given(
    ran: Ran, model: FakeModel, monkeypatch: pytest.MonkeyPatch, sharp_model: Path, tmp_path: Path
) -> None:
    for name, place in (("OPENAI_API_KEY", "provider-key"), ("JUDGE_KEY", "judge-key"), ("HF_TOKEN", "hf-token"), ("NUMBERS", "reference")):
        monkeypatch.setenv(name, MARKERS[place])
    monkeypatch.setenv("JOURNEYMAN_API_KEY", MARKERS["server-key"])
    judge = judge_by(lambda text: zlib.crc32(text.encode()) % 100 / 100)
    with serve(lambda request: judge(request) if len(request["messages"]) > 1 else Answer("ready")) as server:
        url = server.base_url.replace("://", f"://judge:{MARKERS['judge-password']}@")
        asked = ["--server", command(), "--env", f"PASSWORD={MARKERS['env']}", "--env", "OTHER=${NUMBERS}", "--env", "LEAKS=yes"]
        judged = ["--judge", "big-model", *settings(f"judge_options.base_url={url}", "judge_options.api_key_env=JUDGE_KEY")]
        assert ran("mcp", "train", *asked, *judged, "--base", "fake-model", *settings(*SMALL)) == 0
        assert all(server.keys)
        ids = ran.info.id
        assert ran("mcp", "train", "--resume", ids, "--steps", "2") == 2
        assert not [name for name in ("after --token", "--api-key=***", "PASSWORD", "LEAKS") if name not in ran.last], ran.last
        assert "OTHER" not in ran.last
        assert ran("mcp", "train", "--resume", ids, "--steps", "2", *asked, *settings(f"judge_options.base_url={url}")) == 0
        assert ran.info.step == 2
        assert ran("runs", "show", ids) == 0
        assert ran("runs", "show", ids, "--json") == 0
        assert ran("runs", "list", "--json") == 0
    make_run(ran.home, sharp_model, run="exported")
    with Store.open(ran.home) as store:
        store.runs.update("exported", settings=store.runs.get(ids).settings)
    assert ran("export", "exported", "--out", str(tmp_path / "out")) == 0
    assert found(tmp_path, ran.said + answers(ran.home, model, MARKERS["server-key"])) == {}
    kept = ran.info.settings["target"]
    assert kept["env"] == {"PASSWORD": "***", "OTHER": "${NUMBERS}", "LEAKS": "***"}
    assert (ran.home.stat().st_mode & 0o777) == 0o700


def test_a_failing_server_that_tells_its_secrets_does_not_bring_them_to_the_terminal(ran: Ran, tmp_path: Path) -> None:
    failing = shlex.join(
        [sys.executable, "-c", "import os, sys; sys.exit(f'{sys.argv} {dict(os.environ)}')", "--token", MARKERS["argument"]]
    )
    assert ran("mcp", "train", "--server", failing, "--env", f"PASSWORD={MARKERS['env']}") == 1
    assert "'PASSWORD': '***'" in ran.last
    assert found(tmp_path, ran.said) == {}


@pytest.mark.parametrize(
    "words",
    [
        ("--url", f"http://me:{MARKERS['url-password']}@127.0.0.1:9/mcp?token={MARKERS['url-parameter']}"),
        ("--url", f"127.0.0.1:9/mcp?token={MARKERS['url-parameter']}"),
        ("--url", f"http://127.0.0.1:9/m cp?token={MARKERS['url-parameter']}"),
        ("--url", "http://127.0.0.1:9/mcp", "--header", f"Authorization: Bearer {MARKERS['argument']}"),
        ("--url", "http://127.0.0.1:9/mcp", "--header", f"Authorization Bearer {MARKERS['argument']}"),
        ("--url", "http://127.0.0.1:9/mcp", "--header", f"Authorization: Bearer {MARKERS['argument']}\nX: y"),
        ("--server", f"no-such-server --token {MARKERS['argument']} '"),
        ("--server", f"no-such-server --token {MARKERS['argument']}", "--env", MARKERS["env"]),
        ("--server", f"no-such-server -c 'TOKEN={MARKERS['argument']} serve'"),
        ("--server", "x", "--set", f"target.env.PASSWORD:{MARKERS['env']}"),
        ("--server", "x", "--set", f"target.env.PASSWORD={{{MARKERS['env']}"),
        ("--set", f"target.headers={MARKERS['env']}", "--set", "target.url=http://127.0.0.1:9"),
        ("--set", f"target=http://127.0.0.1:9?token={MARKERS['url-parameter']}"),
        ("--server", "x", "--set", f"target.url=http://127.0.0.1:9?token={MARKERS['url-parameter']}"),
        ("--server", "x", "--set", f"target.env.PASSWORD=[{MARKERS['env']}]"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_what_cannot_be_used_is_named_without_its_secret(ran: Ran, tmp_path: Path, words: Sequence[str]) -> None:
    assert ran("mcp", "train", *words) in (1, 2)
    assert "error:" in ran.last
    assert found(tmp_path, ran.said) == {}
