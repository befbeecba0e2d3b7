"""Replies that leave while they are being drawn: tokens become pieces of text that no later token can change.

Not for drawing them (`sampling.py`) nor for the wire. What the pieces of a reply join to is what it says when it is taken apart whole.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from journeyman.chat.renderer import Renderer
from journeyman.chat.reply import LiveText, ParsedReply, ReplyFormat
from journeyman.errors import EngineError
from journeyman.types.messages import FunctionCall, Message, ToolCall
from journeyman.types.sampling import FinishReason, SampleDelta
from journeyman.types.trajectory import Turn


@dataclass(frozen=True, slots=True)
class ReplyDelta:
    """What is new of one of the replies asked for.

    Attributes:
        index: which of the n replies.
        num_prompt_tokens: of the prompt, the same on every delta.
        token_ids, logprobs: newly drawn; their text may come with a later delta.
        reasoning, content: new text, "" for none.
        tool_calls: all of the reply's, on its last delta: text may stand after a call, and belongs before it on the wire.
        finish_reason: set on the reply's last delta.
    """

    index: int
    num_prompt_tokens: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    reasoning: str = ""
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None


async def live_reply(
    index: int,
    num_prompt_tokens: int,
    samples: AsyncGenerator[SampleDelta],
    renderer: Renderer,
    reply_format: ReplyFormat,
) -> AsyncGenerator[ReplyDelta]:
    """One reply, as its tokens come. Closing it closes `samples`."""
    text = LiveText(renderer)
    ids: list[int] = []
    sent_reasoning = sent_content = ""
    async with aclosing(samples):
        async for delta in samples:
            ids.extend(delta.token_ids)
            calls: tuple[ToolCall, ...] = ()
            if delta.finish_reason is None:
                reasoning, content = reply_format.settled(text.add(delta.token_ids))
            else:
                message = reply_message(reply_format.parse(renderer.reply_text(ids)))
                reasoning, content, calls = message.reasoning_content or "", message.content or "", message.tool_calls
            yield ReplyDelta(
                index,
                num_prompt_tokens,
                delta.token_ids,
                delta.logprobs,
                reasoning[len(sent_reasoning) :],
                content[len(sent_content) :],
                calls,
                delta.finish_reason,
            )
            if delta.finish_reason is not None:
                return
            sent_reasoning, sent_content = reasoning, content
    raise EngineError("the engine ended a sample without a reason")


def whole_replies(turns: Sequence[Turn]) -> list[ReplyDelta]:
    """Replies that are complete, each as a single delta."""
    return [
        ReplyDelta(
            index,
            len(turn.prompt_ids),
            turn.sampled_ids,
            turn.sampled_logprobs,
            turn.reply.reasoning_content or "",
            turn.reply.content or "",
            turn.reply.tool_calls,
            turn.finish_reason,
        )
        for index, turn in enumerate(turns)
    ]


def reply_message(parsed: ParsedReply) -> Message:
    """The message that a reply is, its calls with new ids."""
    calls = tuple(_mint(call) for call in parsed.tool_calls)
    return Message(role="assistant", content=parsed.content, tool_calls=calls, reasoning_content=parsed.reasoning)


async def merged(sources: Sequence[AsyncGenerator[ReplyDelta]]) -> AsyncGenerator[ReplyDelta]:
    """What several generators yield, as it comes. When one fails, or this is closed, all are closed and waited for."""
    arrived: asyncio.Queue[ReplyDelta | asyncio.Task[None]] = asyncio.Queue()

    async def pump(source: AsyncGenerator[ReplyDelta]) -> None:
        async with aclosing(source):
            async for item in source:
                arrived.put_nowait(item)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        for task in tasks:
            task.add_done_callback(arrived.put_nowait)
        num_running = len(tasks)
        while num_running:
            item = await arrived.get()
            if isinstance(item, ReplyDelta):
                yield item
            else:
                item.result()
                num_running -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _mint(call: FunctionCall) -> ToolCall:
    # 24 hex digits and no other characters: one framework rewrites ids that look otherwise.
    return ToolCall(id=f"call_{secrets.token_hex(12)}", function=call)
