"""What judging costs: the cache, counters, the budget, metrics, and brackets of large groups."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.llm_server import Answer, serve
from tests.rewards.attempts import GOOD, attempt, scenario
from tests.rewards.test_ruler import PLAIN, group, judge_by, reply, ruler, shown

from journeyman.errors import SettingError, StoreError
from journeyman.llm import Usage
from journeyman.rewards import Criterion, JudgeBudget, JudgeBudgetError, Price, judge_metrics
from journeyman.rewards.judge_store import JudgeStore, Spending
from journeyman.rewards.ruler import rubric_text
from journeyman.types.trajectory import Group

CACHED = PLAIN.model_copy(update={"cache": True})
by_number = judge_by(lambda text: int(re.findall(r"number (\d+)", text)[0]) / 20)


async def test_a_repeated_group_is_answered_from_disk_in_any_order_of_its_attempts(tmp_path: Path) -> None:
    one = group("number 1", "number 9", "number 5")
    mixed = one.model_copy(update={"trajectories": tuple(reversed(one.trajectories))})
    with serve(by_number) as server:
        for asked in (one, mixed):
            judge = ruler(server.base_url, options=CACHED, home=tmp_path)
            [scored] = await judge.score([asked])
            await judge.close()
            assert sorted(zip([t.id for t in scored], scored.rewards, strict=True)) == [("t0", 0.05), ("t1", 0.45), ("t2", 0.25)]
        assert len(server.requests) == 2
    metrics = judge_metrics([scored])
    assert metrics["judge/cached"] == 1.0
    assert metrics["judge/prompt_tokens"] == 0.0


async def test_another_rubric_or_content_is_asked_anew(tmp_path: Path) -> None:
    with serve(by_number) as server:
        for rubric, answers in (("short is good", ("number 1", "number 2")), ("long is good", ("number 1", "number 2"))):
            judge = ruler(server.base_url, options=CACHED, home=tmp_path, rubric=rubric)
            await judge.score([group(*answers)])
            await judge.score([group("number 1", "number 3")])
            await judge.close()
        assert len(server.requests) == 8


async def test_everything_a_judge_said_is_kept_on_the_verdict() -> None:
    with serve(by_number) as server:
        judge = ruler(server.base_url)
        [scored] = await judge.score([group("number 4", "number 8")])
        await judge.close()
    verdict = scored.trajectories[1].verdict
    assert verdict is not None
    assert verdict.checks == {"order_agreement": 1.0}
    assert sorted(call.place for call in verdict.calls) == [0, 1]
    assert {(call.model, call.num_shown, call.score, call.explanation) for call in verdict.calls} == {("big-model", 2, 0.4, "e")}
    assert '"score": 0.4' in verdict.calls[0].raw
    assert verdict.calls[0].prompt_tokens == 10


@pytest.mark.parametrize("size", [6, 8, 16])
async def test_a_large_group_is_judged_in_small_calls_each_attempt_twice(size: int) -> None:
    with serve(by_number) as server:
        judge = ruler(server.base_url)
        [scored] = await judge.score([group(*[f"number {at}" for at in range(size)])])
        await judge.close()
        assert max(len(shown(request)) for request in server.requests) <= 5
        assert sum(len(shown(request)) for request in server.requests) == 2 * size
    assert scored.rewards == pytest.approx([at / 20 for at in range(size)])


async def test_pairwise_mode_scores_by_comparisons_won() -> None:
    with serve(by_number) as server:
        judge = ruler(server.base_url, options=PLAIN.model_copy(update={"mode": "pairwise"}))
        [scored] = await judge.score([group("number 1", "number 9", "number 5")])
        await judge.close()
        assert len(server.requests) == 6
    assert scored.rewards == (0.0, 1.0, 0.5)


async def test_a_judge_that_prefers_places_to_contents_is_noticed() -> None:
    said: list[str] = []

    def first_is_best(request: dict[str, Any]) -> Answer:
        labels = list(shown(request))
        return reply({label: 1.0 - place / 10 for place, label in enumerate(labels)})

    groups = [group(f"a{at}", f"b{at}", f"c{at}") for at in range(4)]
    with serve(first_is_best) as server:
        judge = ruler(server.base_url, warn=said.append)
        scored = await judge.score(groups)
        await judge.close()
    assert judge_metrics(scored)["judge/order_agreement"] == 0.0
    assert "nearly guesses" in said[0]
    assert all(reward == pytest.approx(0.9) for one in scored for reward in one.rewards)


async def test_a_spent_budget_stops_before_the_next_call_and_says_how_to_go_on(tmp_path: Path) -> None:
    options = CACHED.model_copy(update={"budget": "1000"})

    def script(request: dict[str, Any]) -> Answer:
        answer = reply(dict.fromkeys(shown(request), 0.5))
        return Answer(body=_completion(answer.content or "", prompt_tokens=600))

    with serve(script) as server:
        judge = ruler(server.base_url, options=options, home=tmp_path, run="r1")
        await judge.score([group("a", "b")])
        with pytest.raises(JudgeBudgetError) as caught:
            await judge.score([group("c", "d")])
        await judge.close()
        made = len(server.requests)
        again = ruler(server.base_url, options=options, home=tmp_path, run="r1")
        assert again.spending.usage.prompt_tokens == 600 * made
        with pytest.raises(JudgeBudgetError):
            await again.score([group("x", "y")])
        await again.close()
        assert len(server.requests) == made
    assert "1,000 tokens" in caught.value.message


async def test_an_attempt_too_long_for_the_judge_is_named_with_sizes_and_left_out() -> None:
    attempts = (attempt("z" * 9000, GOOD, id="rambler"), attempt("a", GOOD, id="a"), attempt("b", GOOD, id="b"))
    with serve(judge_by(lambda _: 0.5)) as server:
        judge = ruler(server.base_url, options=PLAIN.model_copy(update={"max_tokens_per_attempt": 500}))
        [scored] = await judge.score([Group(scenario=scenario(), trajectories=attempts)])
        await judge.close()
    assert scored.rewards == (None, 0.5, 0.5)
    assert scored.trajectories[0].verdict is not None
    assert re.search(r"rambler: .* 2,\d+ .* 500 ", scored.trajectories[0].verdict.explanation)


async def test_a_context_without_room_for_any_attempt_is_refused_with_sizes() -> None:
    with serve(judge_by(lambda _: 0.5)) as server:
        judge = ruler(server.base_url, options=PLAIN.model_copy(update={"context_tokens": 512}))
        with pytest.raises(SettingError, match="512"):
            await judge.score([group("a", "b")])
        await judge.close()


async def test_nothing_waits_for_the_file_on_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop: dict[str, bool] = {}
    loop_thread = threading.get_ident()

    def noting(name: str) -> Callable[..., Any]:
        method = getattr(JudgeStore, name)

        def noted(*given: Any) -> Any:
            on_loop[name] = threading.get_ident() == loop_thread
            return method(*given)

        return noted

    for name in ("get", "put", "add_spent"):
        monkeypatch.setattr(JudgeStore, name, noting(name))
    with serve(by_number) as server:
        judge = ruler(server.base_url, options=CACHED, home=tmp_path, run="r1")
        await judge.score([group("number 1", "number 2")])
        await judge.close()
    assert on_loop == {"get": False, "put": False, "add_spent": False}


def test_money_is_counted_and_a_budget_in_dollars_needs_a_price() -> None:
    with pytest.raises(SettingError, match="price"):
        Spending(budget=JudgeBudget.parse("$1"))
    purse = Spending(price=Price(prompt=1.0, completion=2.0), budget=JudgeBudget.parse("$1"))
    purse.allow(100)
    purse.pay(100, Usage(600_000, 150_000, 1))
    assert purse.cost_usd == pytest.approx(0.9)
    with pytest.raises(JudgeBudgetError, match=r"\$0\.9000 of \$1\.0000"):
        purse.allow(200_000)


@pytest.mark.parametrize("text", ["", "a lot", "-5", "5 euros"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        JudgeBudget.parse(text)


def test_a_file_that_is_no_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "judge.db").write_text("not a database at all, but long enough to look at " * 20)
    with pytest.raises(StoreError, match=r"judge\.db"):
        JudgeStore(tmp_path).get("k")


def test_weighted_criteria_become_text_and_empty_ones_are_refused() -> None:
    assert "(75 %) right" in rubric_text([Criterion(text="right", weight=3), Criterion(text="short")])
    for empty in ("  ", []):
        with pytest.raises(SettingError):
            rubric_text(empty)


def _completion(content: str, *, prompt_tokens: int) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 0, "total_tokens": prompt_tokens},
    }
