"""Uploading, against a hub on loopback that speaks as much of the protocol as an upload of small files needs."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.export.runs import RUN, make_run

from journeyman.errors import SettingError, StoreError
from journeyman.export.export import export_run
from journeyman.export.hub import HubRepository
from journeyman.export.settings import ExportSettings
from journeyman.store.store import Store

TOKEN = "hf_test"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a mapping of file names to contents. `refuses`: part of a path that is answered with 503."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.visibility: dict[str, Any] = {}
        self.refuses = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self._answer({"type": "user", "name": "me"} if self.path == "/api/whoami-v2" else {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self._post(self.path, body))

    def _post(self, path: str, body: bytes) -> dict[str, Any]:
        name = "/".join(path.split("/")[3:5])
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories[name] = {}
            self.server.visibility[name] = asked.get("visibility", asked.get("private"))
            return {"url": f"{self.server.url}/{name}"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
        if "/commit/" in path:
            for line in body.decode().splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    self.server.repositories[name][one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            return {"commitUrl": f"{self.server.url}/{name}/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None}
        return {}

    def _answer(self, body: dict[str, Any]) -> None:
        is_known = self.headers["Authorization"] == f"Bearer {TOKEN}"
        is_refused = bool(self.server.refuses) and self.server.refuses in self.path
        self.send_response(501 if is_refused else 200 if is_known else 401)
        text = json.dumps(body).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
        hub.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("---\nlibrary_name: peft\n---\n# time\n")
    (tmp_path / "adapter_config.json").write_text("{}")
    return tmp_path


def test_an_export_is_uploaded_whole_into_a_private_repository(hub: Hub, folder: Path) -> None:
    url = HubRepository.reach("me/time").upload(folder, "time@3")
    assert url == f"{hub.url}/me/time"
    assert hub.repositories["me/time"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.visibility["me/time"] in ("private", True)


def test_without_a_token_nothing_begins(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(SettingError) as caught:
        HubRepository.reach("me/time")
    assert caught.value.reason == "no_hub_token"


def test_a_token_that_the_hub_does_not_know_is_a_setting_to_correct(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(SettingError, match="401") as caught:
        HubRepository.reach("me/time")
    assert caught.value.reason == "hub_refused"


def test_offline_is_said_before_anything_is_written(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreError) as caught:
        HubRepository.reach("me/time")
    assert caught.value.reason == "hub_unreachable"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError) as caught:
        HubRepository.reach("me/time")
    assert caught.value.reason == "hub_offline"


def test_an_upload_that_fails_says_where_the_export_is(hub: Hub, folder: Path) -> None:
    repository = HubRepository.reach("me/time")
    hub.refuses = "/commit/"
    with pytest.raises(StoreError, match="501") as caught:
        repository.upload(folder, "time@3")
    assert caught.value.reason == "hub_failed"
    assert f"hf upload me/time {folder}" in str(caught.value)
    assert (folder / "README.md").exists()


@pytest.mark.parametrize("name", ["time", "me/time/x", "me/..", "-me/time", "me/ti me"])
def test_a_name_that_is_no_repository_is_refused(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        HubRepository.reach(name)
    assert caught.value.reason == "no_repository_name"


def test_nothing_that_is_uploaded_names_a_folder_of_this_machine(hub: Hub, sharp_model: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "home", sharp_model)
    with Store.open(tmp_path / "home") as store:
        export_run(store, RUN, ExportSettings(format="merged"), push_to=HubRepository.reach("me/time"))
    uploaded = hub.repositories["me/time"]
    assert {"README.md", "config.json", "journeyman.json", "tokenizer_config.json", "model.safetensors"} <= uploaded.keys()
    named = [name for name, content in uploaded.items() if str(tmp_path).encode() in content or str(sharp_model.parent).encode() in content]
    assert named == []
    assert f"`{sharp_model.name}` (a folder on the machine that trained it)" in uploaded["README.md"].decode()


def test_an_adapter_of_a_base_without_a_public_name_is_not_uploaded(hub: Hub, sharp_model: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "home", sharp_model)
    with Store.open(tmp_path / "home") as store, pytest.raises(SettingError) as caught:
        export_run(store, RUN, ExportSettings(), out=tmp_path / "out", push_to=HubRepository.reach("me/time"))
    assert caught.value.reason == "base_not_public"
    assert str(sharp_model) not in str(caught.value)
    assert hub.repositories == {}
    assert not (tmp_path / "out").exists()
