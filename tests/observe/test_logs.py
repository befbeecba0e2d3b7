from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from journeyman.observe.logs import set_up_logging
from journeyman.redaction import redact


@pytest.fixture
def loggers() -> Iterator[None]:
    names = ("journeyman", "uvicorn")
    before = [(logging.getLogger(name).level, logging.getLogger(name).propagate) for name in names]
    yield
    for name, (level, propagate) in zip(names, before, strict=True):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(level)
        logger.propagate = propagate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("POST /r/ab12.s3cret/v1/models", "POST /r/ab12.***/v1/models"),
        ("http://127.0.0.1:1/r/a_b-9.x-y_z", "http://127.0.0.1:1/r/a_b-9.***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("nothing secret: 3.14", "nothing secret: 3.14"),
    ],
)
def test_tokens_are_taken_out_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_a_token_in_an_argument_or_a_traceback_does_not_reach_the_log(loggers: None) -> None:
    stream = io.StringIO()
    set_up_logging(logging.INFO, stream)
    logger = logging.getLogger("journeyman.server")
    logger.info("serving %s", "/r/one.t0ken/v1")
    try:
        raise ValueError("/r/two.t0ken/v1")
    except ValueError:
        logger.exception("failed")
    assert "t0ken" not in stream.getvalue()
    assert "/r/one.***" in stream.getvalue()


def test_setting_up_twice_writes_each_line_once(loggers: None) -> None:
    stream = io.StringIO()
    set_up_logging(logging.INFO, io.StringIO())
    set_up_logging(logging.INFO, stream)
    logging.getLogger("journeyman").info("once")
    assert stream.getvalue().count("once") == 1
