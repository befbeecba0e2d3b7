"""One worker: a thread of one torch thread that runs a batch of rows, one forward pass after another.

Each step: take what arrived, admit it to the batch (finding what the cache already knows of its prompt), compute prompts that are not
computed yet, else draw one token for every row. One adapter at a time: requests for another wait, first come first served, until the
batch is empty.

A row fails alone: what is wrong with it (its grammar, its numbers, its callback) is its own error, and the rows beside it go on. Only a
forward pass that fails through no single row fails them all.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn

from journeyman.engine.local.cache import CacheShape, DecodeLayout, FinishedRow, KVCache, Prefix, PrefixCache, PromptLayout
from journeyman.engine.local.rows import Inbox, Row, as_ours
from journeyman.engine.local.sampler import draw
from journeyman.engine.local.variants import Variants
from journeyman.errors import ContextLengthError, EngineError, JourneymanError, WaitTimeoutError
from journeyman.modeling.head import Head
from journeyman.types.sampling import FinishReason, SampleDelta

MIN_SHARED_TOKENS = 16
TOKENS_PER_PROMPT_STEP = 1024
INITIAL_CAPACITY = 1024
#: Of one step: a forward pass, at most with the building of an adapter. A worker that takes longer is stuck.
STEP_TIMEOUT_SECONDS = 900.0

_log = logging.getLogger(__name__)


class Worker:
    """Runs rows until they finish. `submit` and `call` may be used from any thread; the rest is the worker thread's own."""

    def __init__(
        self,
        variants: Variants,
        shape: CacheShape,
        *,
        context_length: int,
        max_rows: int,
        cache_bytes: int,
        decode: Callable[[list[int]], str],
    ) -> None:
        self._variants = variants
        self._context_length = context_length
        self._max_rows = max_rows
        self._decode = decode
        self._device = shape.device
        self._kv_cache = KVCache(shape, max_rows, min(INITIAL_CAPACITY, context_length))
        self._prefix_cache = PrefixCache(shape, cache_bytes)
        self._inbox = Inbox()
        self._waiting: deque[Row] = deque()
        self._running: list[Row] = []
        self._module: nn.Module | None = None
        self._step_began_at = time.monotonic()
        self.num_unfinished = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine-worker", daemon=True)
        self._thread.start()

    def submit(self, row: Row) -> None:
        with self._lock:
            self.num_unfinished += 1
        try:
            self._inbox.put(row)
        except EngineError as ending:
            self._leave(row, ending)

    def call(self, function: Callable[[PrefixCache], None]) -> None:
        """Run `function` on the prefix cache, in the worker's thread, between two steps. Waits, and raises, as `Inbox.call`."""
        self._inbox.call(lambda: function(self._prefix_cache))

    def check(self) -> None:
        """Raises EngineError when the thread is gone, WaitTimeoutError when its step takes so long that it will hardly end."""
        if self._inbox.ending is not None:
            raise self._inbox.ending
        seconds = time.monotonic() - self._step_began_at
        if self.num_unfinished and seconds > STEP_TIMEOUT_SECONDS:
            raise WaitTimeoutError(f"an engine worker's step did not end within {seconds:.0f} s", hint="start again")

    def rest(self) -> None:
        """Forget all that was computed, and let go of its memory. Rows that run by then (whoever asked gave up waiting) keep theirs."""

        def let_go(cache: PrefixCache) -> None:
            cache.forget(everything=True)
            if not self._running:
                self._kv_cache.clear()

        self.call(let_go)

    def close(self) -> None:
        """End the thread; unfinished requests fail. Idempotent."""
        self._inbox.close()
        self._thread.join(timeout=60.0)

    def _run(self) -> None:
        died: EngineError | None = None
        try:
            torch.set_num_threads(1)
            with torch.inference_mode():
                while self._inbox.ending is None:
                    self._receive()
                    try:
                        self._step()
                    except Exception as error:  # noqa: BLE001 - the worker's top handler: the requests fail, the worker lives
                        self._fail(error)
        except BaseException as error:  # noqa: BLE001 - the thread's top handler: it becomes the error of whoever waits
            _log.exception("an engine worker died")
            died = EngineError(f"an engine worker died: {type(error).__name__}: {error}", hint="start again", reason="worker_died")
        finally:
            ending = died or self._inbox.ending or EngineError("an engine worker ended", reason="worker_died")
            rows = [*self._inbox.end(ending), *self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
            for row in rows:
                self._leave(row, ending)

    def _receive(self) -> None:
        """Everything that arrived; blocks while there is nothing to do."""
        while True:
            is_idle = not self._running and not self._waiting and self._inbox.ending is None
            try:
                row = self._inbox.take(block=is_idle)
            except queue.Empty:
                return
            if row is not None:
                self._step_began_at = time.monotonic()
                self._waiting.append(row)

    def _step(self) -> None:
        self._step_began_at = time.monotonic()
        for row in [row for row in self._running if row.is_cancelled]:
            self._finish(row, "cancelled")
        self._schedule()
        rows = self._next_prompts()
        is_prompt = bool(rows)
        rows = rows or list(self._running)
        if not rows:
            return
        try:
            hidden = self._forward(rows, is_prompt)
        except Exception as error:  # noqa: BLE001 - one of them may be to blame, and then only that one fails
            rows = self._without_failing(rows, error)
            if not rows:
                return
            hidden = self._forward(rows, is_prompt)
        rows, hidden = self._finite(rows, hidden)
        for row in rows:
            if row.is_fresh:
                row.is_fresh = False
                self._share(row)
        if rows:
            self._draw(rows, hidden)

    def _without_failing(self, rows: list[Row], error: Exception) -> list[Row]:
        """Those whose pass does not fail when each is computed alone; the others fail with their own error. Raises `error` when none does.

        Nothing of a pass that failed counts: the keys it wrote are written again.
        """
        guilty: list[tuple[Row, Exception]] = []
        for row in rows if len(rows) > 1 else ():
            try:
                self._computed([row], is_prompt=True)
            except Exception as own:  # noqa: BLE001 - that row's
                guilty.append((row, own))
        if len(rows) == 1:
            guilty = [(rows[0], error)]
        if not guilty:
            raise error
        for row, cause in guilty:
            self._fail_row(row, cause)
        return [row for row in rows if row in self._running]

    def _finite(self, rows: list[Row], hidden: Tensor) -> tuple[list[Row], Tensor]:
        """Those whose hidden states are numbers; the others fail, before anything of theirs is kept for others."""
        is_finite = torch.isfinite(hidden).all(dim=-1)
        if bool(is_finite.all()):
            return rows, hidden
        sound = [row for row, is_sound in zip(rows, is_finite.tolist(), strict=True) if is_sound]
        for row in [row for row in rows if row not in sound]:
            self._fail_row(row, _not_numbers(row))
        return sound, hidden[is_finite]

    def _schedule(self) -> None:
        """Waiting rows into the batch, in order; at most one whose prompt is new, so that its siblings can share it."""
        while self._waiting and len(self._running) < self._max_rows:
            row = self._waiting[0]
            if row.is_cancelled:
                self._waiting.popleft()
                self._deliver_end(row, "cancelled")
                continue
            if self._running and row.request.adapter != self._running[0].request.adapter:
                return
            if any(other.is_fresh and other.pending for other in self._running):
                return
            self._waiting.popleft()
            try:
                if not self._running:
                    self._module = self._variants.module(row.request.adapter)
                self._place(row)
            except BaseException as error:  # noqa: BLE001 - that row's: its adapter cannot be built, its grammar's code panics
                self._fail_row(row, error)

    def _place(self, row: Row) -> None:
        """Give the row a place in the `KVCache` and whatever the cache knows of its prompt."""
        ids = row.request.prompt_ids
        if not 0 < len(ids) < self._context_length:
            raise ContextLengthError(f"the prompt has {len(ids)} tokens, the model's context is {self._context_length}")
        row.slot = len(self._running)
        kept = self._prefix_cache.take_row(row.request.adapter, ids)
        if kept is not None:
            row.prefix, row.num_own = kept.prefix, kept.own.shape[3]
            self._kv_cache.copy_in(row.slot, kept.own)
            row.ids = list(kept.ids)
        else:
            prefix, shared = self._prefix_cache.find_prefix(row.request.adapter, ids)
            if prefix is not None and shared == len(prefix.ids):
                row.prefix, row.ids = prefix, list(prefix.ids)
            elif prefix is not None and shared >= MIN_SHARED_TOKENS:
                self._kv_cache.copy_in(row.slot, prefix.states[:, :, :, :shared])
                row.num_own, row.ids = shared, list(ids[:shared])
            row.is_fresh = len(ids) - len(row.ids) > MIN_SHARED_TOKENS
            if row.is_fresh and row.prefix is not None:
                self._kv_cache.copy_in(row.slot, row.prefix.states)
                row.num_own, row.prefix = len(row.ids), None
        row.pending = list(ids[len(row.ids) :])
        self._running.append(row)

    def _next_prompts(self) -> list[Row]:
        chosen: list[Row] = []
        budget = TOKENS_PER_PROMPT_STEP
        for row in self._running:
            if len(row.pending) > 1 and (not chosen or len(row.pending) <= budget):
                chosen.append(row)
                budget -= len(row.pending)
        return chosen

    def _share(self, row: Row) -> None:
        """Put the row's prompt (but its last token) into the cache."""
        ids = tuple(row.ids[:-1])
        self._prefix_cache.add_prefix(Prefix(row.request.adapter, ids, self._kv_cache.copy_out(row.slot, len(ids))))

    def _forward(self, rows: list[Row], is_prompt: bool) -> Tensor:
        """Compute all pending ids of `rows`; returns the hidden state of each row's last one, [R, E]."""
        hidden = self._computed(rows, is_prompt)
        for row in rows:
            row.ids.extend(row.pending)
            row.num_own += len(row.pending)
            row.pending = []
        return hidden

    def _computed(self, rows: list[Row], is_prompt: bool) -> Tensor:
        self._kv_cache.reserve(max(row.num_own + max(len(row.pending), 1) for row in rows))
        layout: PromptLayout | DecodeLayout = (PromptLayout if is_prompt else DecodeLayout)(self._kv_cache, rows)
        assert self._module is not None
        tokens = [token for row in rows for token in row.pending]
        positions = [len(row.ids) + offset for row in rows for offset in range(len(row.pending))]
        last, end = [], 0
        for row in rows:
            end += len(row.pending)
            last.append(end - 1)
        output = self._module.get_decoder()(  # type: ignore[operator]
            input_ids=torch.tensor([tokens], device=self._device),
            position_ids=torch.tensor([positions], device=self._device),
            use_cache=False,
            layout=layout,
        )
        return output.last_hidden_state[0][torch.tensor(last, device=self._device)]  # type: ignore[no-any-return]

    def _draw(self, rows: list[Row], hidden: Tensor) -> None:
        assert self._module is not None
        ids, logprobs = draw(Head.of(self._module).logits(hidden), rows)
        for row, token, logprob in zip(list(rows), ids, logprobs, strict=True):
            try:
                if row.failure is not None:
                    raise row.failure
                self._advance(row, token, logprob)
            except BaseException as error:  # noqa: BLE001 - that row's: its grammar, its stop strings, its callback
                self._fail_row(row, error)

    def _advance(self, row: Row, token: int, logprob: float) -> None:
        """A row goes on by the token that was drawn for it, or ends."""
        if math.isnan(logprob):
            raise _not_numbers(row)
        row.sampled.append(token)
        row.logprobs.append(logprob)
        row.pending = [token]
        if row.guide is not None:
            row.guide.advance(token)
        reason = self._reason_to_stop(row, token)
        if reason is not None:
            self._finish(row, reason)
        elif row.is_streaming:
            row.deliver(SampleDelta((token,), (logprob,)))

    def _reason_to_stop(self, row: Row, token: int) -> FinishReason | None:
        request = row.request
        if token in request.stop_token_ids or (row.guide is not None and row.guide.is_finished):
            return "stop"
        if request.parameters.stop:
            text = self._decode(row.sampled)
            if any(stop in text for stop in request.parameters.stop):
                return "stop"
        if len(row.sampled) >= request.parameters.max_tokens or len(row.ids) + 1 >= self._context_length:
            return "length"
        return None

    def _finish(self, row: Row, reason: FinishReason) -> None:
        """Take the row out of the batch, keep its states for the next turn, fill its place with the last row."""
        if reason != "cancelled" and not row.is_fresh:
            own = self._kv_cache.copy_out(row.slot, row.num_own)
            self._prefix_cache.add_row(FinishedRow(row.request.adapter, tuple(row.ids), row.prefix, own))
        self._remove(row)
        self._deliver_end(row, reason)

    def _remove(self, row: Row) -> None:
        last = self._running.pop()
        if last is not row:
            self._kv_cache.move(last.slot, row.slot, last.num_own)
            last.slot = row.slot
            self._running[row.slot] = last

    def _deliver_end(self, row: Row, reason: FinishReason) -> None:
        count = 1 if row.is_streaming and reason != "cancelled" else len(row.sampled)
        tail = 0 if row.is_streaming and reason == "cancelled" else count
        ids, logprobs = row.sampled[len(row.sampled) - tail :], row.logprobs[len(row.logprobs) - tail :]
        self._leave(row, SampleDelta(tuple(ids), tuple(logprobs), reason))

    def _leave(self, row: Row, last: SampleDelta | JourneymanError) -> None:
        with self._lock:
            self.num_unfinished -= 1
        try:
            row.deliver(last)
        except BaseException:  # noqa: BLE001 - the row has ended, and nobody hears of it
            _log.exception("the end of a sample reached nobody")

    def _fail_row(self, row: Row, error: BaseException) -> None:
        """End one row with its error. Its place is wiped: what is not a number there would spoil whoever comes next."""
        if row in self._running:
            self._kv_cache.wipe(row.slot, row.num_own + len(row.pending))
            self._remove(row)
        self._leave(row, as_ours(error))

    def _fail(self, error: Exception) -> None:
        rows = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        for row in rows:
            self._leave(row, as_ours(error))
        self._kv_cache.clear()


def _not_numbers(row: Row) -> EngineError:
    return EngineError(
        f"the predictions of {row.request.adapter or 'the base model'} are not numbers",
        hint="its weights are broken: go back to an earlier version",
        reason="not_numbers",
    )
