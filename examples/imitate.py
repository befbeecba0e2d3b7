"""Supervised fine-tuning in one page: orders in plain words become JSON.

    python examples/imitate.py

A small model is shown 128 orders with the JSON they mean, then reads 16 that it has not seen. The untrained model answers in prose; the
trained one writes the JSON. `journeyman train sft.yaml` is the same with settings, a held-out loss over the steps and a report; its data
file was written by `python examples/imitate.py --data`. Named for what it does: the model imitates its examples, token by token.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import sys
from typing import Any

import journeyman as jm

SYSTEM = "Turn the order into JSON."

_ORDERS = (
    "I'd like {count} {size} {items}, please.",
    "Can we have {count} {size} {items}?",
    "{count} {size} {items} to go!",
    "Bring us {count} {items}, {size} ones.",
    "Hello, {count} {items} for me, make it {size}.",
)
_COUNTS = ("one", "two", "three", "four", "five", "six")
_SIZES = ("small", "medium", "large")
_ITEMS = {"coffee": "coffees", "tea": "teas", "juice": "juices", "soup": "soups", "salad": "salads", "pizza": "pizzas", "cake": "cakes"}


def conversations(count: int = 160, seed: int = 0) -> list[dict[str, Any]]:
    """Orders and the JSON they mean, as chats (`{"messages": [...]}`); all different."""
    everything = list(itertools.product(_ORDERS, range(1, len(_COUNTS) + 1), _SIZES, _ITEMS))
    return [_conversation(*chosen) for chosen in random.Random(seed).sample(everything, count)]


def _conversation(order: str, number: int, size: str, item: str) -> dict[str, Any]:
    text = order.format(count=_COUNTS[number - 1], size=size, items=item if number == 1 else _ITEMS[item])
    reply = json.dumps({"item": item, "size": size, "count": number})
    roles = (("system", SYSTEM), ("user", text[:1].upper() + text[1:]), ("assistant", reply))
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


async def main(steps: int = 8) -> None:
    everything = conversations()
    train, heldout = everything[:128], everything[128:144]
    async with jm.local(base="smollm2-135m") as backend:
        model = await backend.model("orders")
        examples = [jm.SftExample.model_validate(one) for one in train]
        # Four updates of eight examples each are a step; a model that was trained before goes on where it stopped.
        for step in range(model.step, steps):
            first = 32 * step % len(examples)
            result = await model.train_sft(examples[first : first + 32], jm.Sft(learning_rate=3e-4, batch_size=8))
            print(f"step {result.step}  loss {result.metrics.get('train/loss', math.nan):.3f}")

        client, num_right = model.openai(), 0
        for one in heldout:
            *asked, expected = one["messages"]
            reply = await client.chat.completions.create(model=model.name, messages=asked, max_tokens=48, temperature=0)
            num_right += reply.choices[0].message.content == expected["content"]
        print(f"{num_right} of {len(heldout)} unseen orders read right, e.g. {reply.choices[0].message.content!r}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--data"]:
        for line in conversations():
            print(json.dumps(line))
    else:
        asyncio.run(main())
