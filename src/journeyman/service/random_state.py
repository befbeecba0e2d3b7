"""The state of every global source of random numbers in this process, as a file of a checkpoint.

Journeyman itself draws from seeds (LoRA's start, the order of examples and scenarios) or from the operating system (attempts without a
seed), so its own steps do not depend on these. A program around it may draw from them: after a resume it draws what it would have
drawn. Sources: `random`, and numpy and torch (with its CUDA devices) where they are imported. Not for the trainer's own state.
"""

from __future__ import annotations

import base64
import json
import random
import sys
from pathlib import Path
from typing import Any

from journeyman.errors import StoreError

FILE = "random.json"


def save_random_state(folder: Path) -> None:
    """Write the states of all sources to `folder`."""
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = [name, keys.tolist(), *rest]
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = _text(torch.get_rng_state())
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = [_text(state) for state in torch.cuda.get_rng_state_all()]
    (folder / FILE).write_text(json.dumps(states), encoding="utf-8")


def load_random_state(folder: Path) -> None:
    """Put all sources where they were; a checkpoint without the file (an older format) leaves them as they are. Raises StoreError."""
    path = folder / FILE
    if not path.exists():
        return
    try:
        _set_all(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise StoreError(f"the random state in {path} cannot be read: {type(error).__name__}: {error}") from error


def _set_all(states: dict[str, Any]) -> None:
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in states and (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = states["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype="uint32"), *rest))
    torch = sys.modules.get("torch")
    if "torch" in states and torch is not None:
        torch.set_rng_state(_tensor(torch, states["torch"]))
        if "cuda" in states and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
            torch.cuda.set_rng_state_all([_tensor(torch, state) for state in states["cuda"]])


def _text(state: Any) -> str:
    return base64.b64encode(bytes(state.tolist())).decode()


def _tensor(torch: Any, text: str) -> Any:
    return torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8)
