"""Request bodies read by hand: our own error shape, and no reliance on the content type foreign clients send."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from journeyman.errors import InputError
from journeyman.server.errors import BadRequestError
from journeyman.types.json_text import parse_json

_Parsed = TypeVar("_Parsed")


async def read_body(request: Request, kind: type[_Parsed] | TypeAdapter[_Parsed]) -> tuple[_Parsed, str]:
    """(the body as `kind`, a hash of its bytes). Raises BadRequestError that names the field."""
    raw = await request.body()
    adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
    try:
        value = parse_json(raw)
    except InputError as error:
        raise BadRequestError(f"the body: {error.message}", reason=error.reason) from error
    try:
        return adapter.validate_python(value), hashlib.sha256(raw).hexdigest()
    except ValidationError as error:
        raise _bad_request(error) from error


def _bad_request(error: ValidationError) -> BadRequestError:
    first = error.errors(include_url=False)[0]
    # Our own validators say more exactly where it is, and name what is wrong by the error's type.
    path = first.get("ctx", {}).get("path")
    field = _name((*first["loc"], *(path or ())))
    message = first["msg"].removeprefix("Value error, ")
    reason = "invalid_value" if path is None else first["type"]
    return BadRequestError(f"{field}: {message}" if field else message, field or None, reason=reason)


def _name(path: Sequence[str | int]) -> str:
    """A place in a body as OpenAI writes it: `messages[0].content[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def records(values: Sequence[BaseModel]) -> Response:
    """Records as a JSON list."""
    return JSONResponse([value.model_dump(mode="json") for value in values])


def record(value: BaseModel, status: int = 200) -> Response:
    """A record as a JSON response."""
    return Response(value.model_dump_json(), status_code=status, media_type="application/json")
