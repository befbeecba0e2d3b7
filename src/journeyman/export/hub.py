"""Upload an export to the Hugging Face hub. Whether that can work is found out before the export begins.

The token comes from HF_TOKEN or from `hf auth login`; HF_ENDPOINT names another hub. Not for downloading: see `modeling/base_models.py`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journeyman.config import check_hub_token, environment
from journeyman.errors import SettingError, StoreError
from journeyman.http_clients import HUB_URL, proxy_of
from journeyman.types.secrets import remember_key

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


class HubRepository:
    """A model repository that exports are uploaded to: `HubRepository.reach("org/name")`, later `upload(folder)`."""

    def __init__(self, name: str, api: Any, *, is_private: bool) -> None:
        self.name = name
        self._api = api
        self._is_private = is_private

    @classmethod
    def reach(cls, name: str, *, is_private: bool = True) -> HubRepository:
        """Check name, token and network; nothing is created yet.

        Raises:
            SettingError: no such name is possible, there is no token, or the hub refuses it.
            StoreError: offline, or the hub does not answer.
        """
        from huggingface_hub import HfApi, constants, get_token

        if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
            raise SettingError(
                f"{name!r} is no name of a repository",
                hint="write ORG/NAME: letters, digits, '-', '_' and '.'",
                reason="no_repository_name",
            )
        if constants.is_offline_mode():
            raise StoreError(
                f"cannot upload to {name}: HF_HUB_OFFLINE is set",
                hint="unset it, or export without --push and upload later",
                reason="hub_offline",
            )
        check_hub_token()
        proxy_of(environment("HF_ENDPOINT") or HUB_URL)  # refuses one that cannot be used
        token = get_token()
        if token is None:
            raise SettingError(
                f"cannot upload to {name}: there is no Hugging Face token here",
                hint="set HF_TOKEN, or log in with: hf auth login",
                reason="no_hub_token",
            )
        remember_key(token)
        api = HfApi(endpoint=environment("HF_ENDPOINT"), token=token)
        with _mapped_errors(f"cannot upload to {name}", "nothing was written; export without --push to keep it here"):
            api.whoami()
        return cls(name, api, is_private=is_private)

    def upload(self, folder: Path, message: str) -> str:
        """Create the repository unless it is there, upload the folder in one commit, and return its address.

        Raises SettingError or StoreError; the export in `folder` stays.
        """
        hint = f"the export is whole in {folder}; upload it later with: {shlex.join(['hf', 'upload', self.name, str(folder)])}"
        with _mapped_errors(f"the upload to {self.name} failed", hint), _no_bars():
            repository = self._api.create_repo(self.name, private=self._is_private, exist_ok=True)
            self._api.upload_folder(folder_path=str(folder), repo_id=self.name, commit_message=message)
        return str(repository)


@contextlib.contextmanager
def _mapped_errors(what: str, hint: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        refused = f"{what}: the hub answered {status}: {_first_line(error)}"
        if status in (401, 403):
            raise SettingError(
                refused, hint="use a token that may write there (HF_TOKEN, or hf auth login)", reason="hub_refused"
            ) from error
        raise StoreError(refused, hint=hint, reason="hub_failed") from error
    except (OSError, HTTPError, ValueError) as error:
        raise StoreError(
            f"{what}: {_first_line(error)}", hint=f"check the network (HF_ENDPOINT, HTTPS_PROXY); {hint}", reason="hub_unreachable"
        ) from error


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_disabled:
            enable_progress_bars()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
