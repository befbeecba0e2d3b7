"""Direct preference optimisation in one page: a short answer is preferred to a wordy one.

    python examples/prefer.py

Each pair has a question and two replies, the better first. The model is not told what is better about it; it is made to put more
probability on the chosen reply, and less on the rejected one, than the untrained model does. `journeyman train dpo.yaml` is the same with
settings, held-out pairs over the steps and a report; its data files were written by `python examples/prefer.py --data train` and
`--data heldout`. Named for what it does: no reply is imitated, one is preferred.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
from typing import Any

import journeyman as jm

_CAPITALS = (
    "Argentina:Buenos Aires Australia:Canberra Austria:Vienna Belgium:Brussels Brazil:Brasília Canada:Ottawa Chile:Santiago China:Beijing "
    "Colombia:Bogotá Cuba:Havana Denmark:Copenhagen Egypt:Cairo Finland:Helsinki France:Paris Germany:Berlin Ghana:Accra Greece:Athens "
    "Hungary:Budapest Iceland:Reykjavík India:New Delhi Indonesia:Jakarta Iran:Tehran Ireland:Dublin Italy:Rome Japan:Tokyo Kenya:Nairobi "
    "Mexico:Mexico City Morocco:Rabat Nepal:Kathmandu Norway:Oslo Peru:Lima Poland:Warsaw Portugal:Lisbon Russia:Moscow Spain:Madrid "
    "Sweden:Stockholm Thailand:Bangkok Turkey:Ankara Ukraine:Kyiv Vietnam:Hanoi"
)
_QUESTIONS = ("What is the capital of {country}?", "Which city is the capital of {country}?", "Name the capital of {country}.")
_SHORT = ("{city}.", "It is {city}.", "{city} is the capital.")
_WORDY = (
    "That's a great question! The capital of {country} is {city}. Is there anything else I can help you with?",
    "Thank you for asking. When it comes to {country}, it is important to note that its capital is, of course, the city of {city}.",
    "I'd be happy to help! {country} is a fascinating country with a rich history, and its capital is {city}, a city well worth a visit.",
)

_NUM_TRAIN = 96


def pairs(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(training, held-out) pairs, each a question with a short and a wordy reply: `{"prompt", "chosen", "rejected"}` as lists of messages.

    Countries of held-out questions do not occur in training.
    """
    rng = random.Random(seed)
    countries = [line.split(":") for line in _lines()]
    rng.shuffle(countries)
    made = [_pair(country, city, question, rng) for country, city in countries for question in _QUESTIONS]
    train, heldout = made[:_NUM_TRAIN], made[_NUM_TRAIN:]
    rng.shuffle(train)
    return train, heldout


def _lines() -> list[str]:
    """`Country:City`, where a city may have several words."""
    found: list[str] = []
    for word in _CAPITALS.split():
        if ":" in word:
            found.append(word)
        else:
            found[-1] += f" {word}"
    return found


def _pair(country: str, city: str, question: str, rng: random.Random) -> dict[str, Any]:
    texts = {"prompt": question, "chosen": rng.choice(_SHORT), "rejected": rng.choice(_WORDY)}
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {name: [{"role": roles[name], "content": text.format(country=country, city=city)}] for name, text in texts.items()}


async def main(steps: int = 6) -> None:
    train, (unseen, *_) = pairs()
    async with jm.local(base="smollm2-135m") as backend:
        model = await backend.model("short-answers")
        compared = [jm.PreferencePair.model_validate(one) for one in train]
        # Four updates of eight pairs each are a step; a model that was trained before goes on where it stopped.
        for step in range(model.step, steps):
            first = 32 * step % len(compared)
            result = await model.train_dpo(compared[first : first + 32], jm.Dpo(learning_rate=1e-4, batch_size=8))
            accuracy, margin = (result.metrics.get(f"train/reward_{name}", math.nan) for name in ("accuracy", "margin"))
            print(f"step {result.step}  pairs ranked right {accuracy:.0%}  margin {margin:.2f}")

        question = unseen["prompt"]
        for client, name in ((backend.base_model().openai(), "base"), (model.openai(), model.name)):
            reply = await client.chat.completions.create(model=name, messages=question, max_tokens=48, temperature=0)
            print(f"{name}: {reply.choices[0].message.content!r}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--data"]:
        for line in pairs()[sys.argv[2:] == ["heldout"]]:
            print(json.dumps(line, ensure_ascii=False))
    else:
        asyncio.run(main())
