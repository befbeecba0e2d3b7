"""Where stored trajectories that are trained on may come from: any run of this store whose token ids this model reads alike.

Not for which model sampled them, nor for what becomes of them: see `samples.py`, `examples.py` and `preferences.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from journeyman.errors import InputError
from journeyman.store.rollouts import RolloutRow
from journeyman.store.store import Store
from journeyman.types.trajectory import Trajectory


def readable_trajectories(store: Store, base: str, tokenizer: str) -> Callable[[str], Trajectory]:
    """Loads a trajectory by its id; raises InputError for one of another tokenizer, NotFoundError for an unknown one.

    Args:
        base, tokenizer: name of the base model that is trained, and fingerprint of its vocabulary.
    """

    def load(trajectory_id: str) -> Trajectory:
        row = store.rollouts.get(trajectory_id)
        if not _is_readable(store, row, base, tokenizer):
            origin = "the base model of an earlier server" if row.run is None else f"{row.model} of run {row.run!r}"
            raise InputError(
                f"trajectory {trajectory_id} was sampled by {origin} with another tokenizer than {base} has: its token ids stand for "
                "other text here",
                hint=f"sample it again with a model on {base}; or give its messages, as examples or pairs: they are rendered anew",
            )
        return store.rollouts.trajectory(trajectory_id)

    return load


def _is_readable(store: Store, row: RolloutRow, base: str, tokenizer: str) -> bool:
    """Rollouts of earlier versions have no fingerprint of their own: then the run's counts, and without one the name of its base."""
    if row.tokenizer is not None or row.run is None:
        return row.tokenizer in (None, tokenizer)
    run = next((info for info in store.runs.list() if info.id == row.run), None)
    if run is None:
        return True
    return run.base == base if run.tokenizer is None else run.tokenizer == tokenizer
