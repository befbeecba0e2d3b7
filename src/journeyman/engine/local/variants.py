"""The base model and its adapters as modules to sample from: adapters merged, tensors shared with the base where they are equal."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from journeyman.errors import AdapterError, JourneymanError
from journeyman.modeling.lora import adapted_module, fingerprint, read_adapter


@dataclass(frozen=True, slots=True)
class _Loaded:
    folder: Path
    fingerprint: str


class Variants:
    """Adapters by name. The `max_resident` most recently used are kept merged in memory, others are rebuilt from their folder."""

    def __init__(self, base: nn.Module, max_resident: int = 3) -> None:
        self._base = base
        self._max_resident = max_resident
        self._loaded: dict[str, _Loaded] = {}
        self._merged: OrderedDict[str, nn.Module] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    def load(self, name: str, folder: Path) -> str:
        """Register and merge an adapter; returns the fingerprint of what was read."""
        with self._lock:
            if name in self._loaded:
                raise AdapterError(f"adapter {name} is loaded already", hint="publish every version under a new name")
            module, actual = self._read(name, folder)
            self._insert(name, module)
            self._loaded[name] = _Loaded(folder, actual)
            return actual

    def unload(self, name: str) -> None:
        with self._lock:
            self._require(name)
            del self._loaded[name]
            self._merged.pop(name, None)

    def module(self, name: str | None) -> nn.Module:
        """The module to run for an adapter; None is the base."""
        if name is None:
            return self._base
        with self._lock:
            loaded = self._require(name)
            if name not in self._merged:
                module, actual = self._read(name, loaded.folder)
                if actual != loaded.fingerprint:
                    raise AdapterError(f"the folder of adapter {name} changed while it was loaded: {loaded.folder}")
                self._insert(name, module)
            self._merged.move_to_end(name)
            return self._merged[name]

    def require(self, name: str | None) -> None:
        """Raises AdapterError when `name` is not loaded."""
        if name is not None:
            self._require(name)

    def _require(self, name: str) -> _Loaded:
        if name not in self._loaded:
            raise AdapterError(f"adapter {name} is not loaded", hint="loaded: " + (", ".join(self._loaded) or "none"))
        return self._loaded[name]

    def _read(self, name: str, folder: Path) -> tuple[nn.Module, str]:
        """The base with an adapter, and the adapter's fingerprint. Whatever is wrong with its files is an AdapterError."""
        try:
            tensors, scaling = read_adapter(folder)
            return adapted_module(self._base, tensors, scaling), fingerprint(tensors)
        except JourneymanError:
            raise
        except Exception as error:
            raise AdapterError(
                f"adapter {name} in {folder} cannot be merged: {type(error).__name__}: {error}",
                hint="give a folder written by Journeyman or PEFT for this base model",
            ) from error

    def _insert(self, name: str, module: nn.Module) -> None:
        self._merged[name] = module
        while len(self._merged) > self._max_resident:
            self._merged.popitem(last=False)
