"""One worker: a thread of one torch thread that runs a batch of rows, one forward pass after another.

Each round: take what arrived, admit it to the batch (finding what the cache already knows of its prompt), compute prompts that are not
computed yet, else draw one token for every row. One adapter at a time: requests for another wait, first come first served, until the
batch is empty.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn

from journeyman.engine.local.cache import CacheShape, Kept, Library, Prefix, Slab
from journeyman.engine.local.layout import DecodeLayout, PromptLayout
from journeyman.engine.local.rows import Row
from journeyman.engine.local.sampler import draw
from journeyman.engine.local.variants import Variants
from journeyman.errors import EngineError, JourneymanError
from journeyman.modeling.head import Head
from journeyman.types.sampling import FinishReason, SampleDelta

MIN_SHARED_TOKENS = 16
TOKENS_PER_PROMPT_STEP = 1024
INITIAL_CAPACITY = 1024

Control = Callable[[], None]


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
        self._slab = Slab(shape, max_rows, min(INITIAL_CAPACITY, context_length))
        self._library = Library(shape, cache_bytes)
        self._inbox: queue.SimpleQueue[Row | Control | None] = queue.SimpleQueue()
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._module: nn.Module | None = None
        self._is_closed = False
        self.num_unfinished = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine-worker", daemon=True)
        self._thread.start()

    def submit(self, row: Row) -> None:
        with self._lock:
            if not self._is_closed:
                self.num_unfinished += 1
                self._inbox.put(row)
                return
        row.deliver(_closed())

    def call(self, function: Callable[[Library], None]) -> None:
        """Run `function` on the library, in the worker's thread, between two rounds; waits for it."""
        done = threading.Event()

        def control() -> None:
            function(self._library)
            done.set()

        with self._lock:
            if self._is_closed:
                raise _closed()
            self._inbox.put(control)
        if not done.wait(timeout=120.0):
            raise EngineError("an engine worker did not answer within 120 s")

    def rest(self) -> None:
        """Forget all that was computed, and let go of its memory. For when nothing runs."""

        def let_go(library: Library) -> None:
            library.forget(everything=True)
            self._slab.clear()

        self.call(let_go)

    def close(self) -> None:
        """End the thread; unfinished requests fail. Idempotent."""
        with self._lock:
            self._is_closed = True
            self._inbox.put(None)
        self._thread.join(timeout=60.0)

    def _run(self) -> None:
        torch.set_num_threads(1)
        with torch.inference_mode():
            while not self._is_closed:
                self._take()
                try:
                    self._round()
                except Exception as error:  # noqa: BLE001 - the worker's top handler: the requests fail, the worker lives
                    self._fail(error)
        while not self._inbox.empty():
            self._accept(self._inbox.get())
        self._fail(_closed())

    def _take(self) -> None:
        """Everything that arrived; blocks while there is nothing to do."""
        is_idle = not self._rows and not self._waiting
        while True:
            try:
                item = self._inbox.get(block=is_idle)
            except queue.Empty:
                return
            self._accept(item)
            is_idle = not self._rows and not self._waiting and not self._is_closed

    def _accept(self, item: Row | Control | None) -> None:
        if isinstance(item, Row):
            self._waiting.append(item)
        elif item is not None:
            item()

    def _round(self) -> None:
        for row in [row for row in self._rows if row.is_cancelled]:
            self._finish(row, "cancelled")
        self._admit()
        prompts = self._next_prompts()
        if prompts:
            self._compute_prompts(prompts)
        elif self._rows:
            self._draw(self._rows, self._forward(self._rows, DecodeLayout(self._slab, self._rows)))

    def _admit(self) -> None:
        """Waiting rows into the batch, in order; at most one whose prompt is new, so that its siblings can share it."""
        while self._waiting and len(self._rows) < self._max_rows:
            row = self._waiting[0]
            if row.is_cancelled:
                self._waiting.popleft()
                self._deliver_end(row, "cancelled")
                continue
            if self._rows and row.request.adapter != self._rows[0].request.adapter:
                return
            if any(other.is_fresh and other.pending for other in self._rows):
                return
            try:
                if not self._rows:
                    self._module = self._variants.module(row.request.adapter)
                self._place(row)
            except JourneymanError as error:
                row.deliver(error)
                self._leave()
            # Only now: a row that fails to be placed for another reason must be found by `_fail`.
            self._waiting.popleft()

    def _place(self, row: Row) -> None:
        """Give the row a place in the slab and whatever the cache knows of its prompt."""
        ids = row.request.prompt_ids
        row.slot = len(self._rows)
        kept = self._library.take_kept(row.request.adapter, ids)
        if kept is not None:
            row.prefix, row.num_own = kept.prefix, kept.own.shape[3]
            self._slab.copy_in(row.slot, kept.own)
            row.ids = list(kept.ids)
        else:
            prefix, shared = self._library.find_prefix(row.request.adapter, ids)
            if prefix is not None and shared == len(prefix.ids):
                row.prefix, row.ids = prefix, list(prefix.ids)
            elif prefix is not None and shared >= MIN_SHARED_TOKENS:
                self._slab.copy_in(row.slot, prefix.states[:, :, :, :shared])
                row.num_own, row.ids = shared, list(ids[:shared])
            row.is_fresh = len(ids) - len(row.ids) > MIN_SHARED_TOKENS
            if row.is_fresh and row.prefix is not None:
                self._slab.copy_in(row.slot, row.prefix.states)
                row.num_own, row.prefix = len(row.ids), None
        row.pending = list(ids[len(row.ids) :])
        self._rows.append(row)

    def _next_prompts(self) -> list[Row]:
        chosen: list[Row] = []
        budget = TOKENS_PER_PROMPT_STEP
        for row in self._rows:
            if len(row.pending) > 1 and (not chosen or len(row.pending) <= budget):
                chosen.append(row)
                budget -= len(row.pending)
        return chosen

    def _compute_prompts(self, rows: list[Row]) -> None:
        hidden = self._forward(rows, PromptLayout(self._slab, rows), reserve=max(row.num_own + len(row.pending) for row in rows))
        for row in rows:
            if row.is_fresh:
                row.is_fresh = False
                self._share(row)
        self._draw(rows, hidden)

    def _share(self, row: Row) -> None:
        """Put the row's prompt (but its last token) into the library."""
        ids = tuple(row.ids[:-1])
        self._library.add_prefix(Prefix(row.request.adapter, ids, self._slab.copy_out(row.slot, len(ids))))

    def _forward(self, rows: list[Row], layout: PromptLayout | DecodeLayout, reserve: int = 0) -> Tensor:
        """Compute all pending ids of `rows`; returns the hidden state of each row's last one, [R, E]."""
        needed = max(reserve, max(row.num_own for row in rows) + 1)
        if needed > self._slab.capacity:
            self._slab.reserve(needed)
            layout = type(layout)(self._slab, rows)
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
        for row in rows:
            row.ids.extend(row.pending)
            row.num_own += len(row.pending)
            row.pending = []
        return output.last_hidden_state[0][torch.tensor(last, device=self._device)]  # type: ignore[no-any-return]

    def _draw(self, rows: list[Row], hidden: Tensor) -> None:
        assert self._module is not None
        ids, logprobs = draw(Head.of(self._module).logits(hidden), rows)
        if any(map(math.isnan, logprobs)):
            adapter = rows[0].request.adapter
            raise EngineError(
                f"the predictions of {adapter or 'the base model'} are not numbers",
                hint="its weights are broken: go back to an earlier version",
            )
        for row, token, logprob in zip(list(rows), ids, logprobs, strict=True):
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
            own = self._slab.copy_out(row.slot, row.num_own)
            self._library.keep(Kept(row.request.adapter, tuple(row.ids), row.prefix, own))
        last = self._rows.pop()
        if last is not row:
            self._slab.move(last.slot, row.slot, last.num_own)
            last.slot = row.slot
            self._rows[row.slot] = last
        self._deliver_end(row, reason)

    def _deliver_end(self, row: Row, reason: FinishReason) -> None:
        count = 1 if row.is_streaming and reason != "cancelled" else len(row.sampled)
        tail = 0 if row.is_streaming and reason == "cancelled" else count
        ids, logprobs = row.sampled[len(row.sampled) - tail :], row.logprobs[len(row.logprobs) - tail :]
        row.deliver(SampleDelta(tuple(ids), tuple(logprobs), reason))
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            self.num_unfinished -= 1

    def _fail(self, error: Exception) -> None:
        wrapped = error if isinstance(error, JourneymanError) else EngineError(f"the engine failed: {type(error).__name__}: {error}")
        for row in [*self._rows, *self._waiting]:
            row.deliver(wrapped)
            self._leave()
        self._rows.clear()
        self._waiting.clear()
        self._slab.clear()


def _closed() -> EngineError:
    return EngineError("the engine was closed")
