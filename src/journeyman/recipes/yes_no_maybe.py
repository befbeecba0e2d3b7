"""The tasks and the reward of `yes_no_maybe.yaml`: asked to reply with yes, no or maybe, learn to say maybe.

`examples/yes_no_maybe.py` is a program that trains on them.
"""

from __future__ import annotations

import itertools
import random

import journeyman as jm

REWARDS = {"maybe": 1.0, "no": 0.75, "yes": 0.5}

_VERBS = ("Reply", "Answer", "Respond", "Say one word: reply", "In one word, answer", "Please respond")
_FORMS = ("{}, {} or {}", "'{}', '{}' or '{}'", "{} / {} / {}")


def scenarios(seed: int = 0) -> list[jm.Scenario]:
    """108 prompts: every order of the three words, in three spellings, behind six openings; shuffled by `seed`."""
    tasks = [
        f"{verb} with {form.format(*words)}." for verb, form, words in itertools.product(_VERBS, _FORMS, itertools.permutations(REWARDS))
    ]
    random.Random(seed).shuffle(tasks)
    return [jm.Scenario(id=f"prompt-{number}", task=task) for number, task in enumerate(tasks)]


def reward(_scenario: jm.Scenario, trajectory: jm.Trajectory) -> float:
    """What the reply is worth: the word alone counts, in any case, with or without quotes and a full stop."""
    reply = trajectory.answer or ""
    return REWARDS.get(reply.strip(" \n.'\"*!").lower(), 0.0)
