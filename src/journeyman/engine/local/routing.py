"""Which worker (or process) a prompt goes to: where its beginning is computed already, else the idlest. Not for queueing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

_MAX_HOMES = 1024


class Router:
    """Remembers which place computed which token ids.

    A group's prompts go to one place, so that they are computed once; the next turn of a rollout goes where the states of its last turn
    are kept. What is known is whole prompts (and replies), so a new prompt is free to go to the idlest place even though all prompts
    share a system message.

    Args:
        num_places: how many there are.
        max_lead: a place that has so many more unfinished requests than the idlest gets no more; computing a prompt again is then cheaper
            than waiting.

    Example:
        >>> router = Router(2, max_lead=16)
        >>> first = router.place((1, 2, 3), [0, 0])
        >>> router.place((1, 2, 3), [5, 0]) == first        # its sibling
        True
        >>> router.place((9, 9, 9), [5, 0])                 # another prompt
        1
    """

    def __init__(self, num_places: int, *, max_lead: int) -> None:
        self._num_new = [0] * num_places
        self._max_lead = max_lead
        self._homes: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def place(self, prompt_ids: tuple[int, ...], loads: Sequence[int]) -> int:
        """The place for a prompt, given the number of unfinished requests of each place."""
        # Among equally idle places, the one that was given fewer prompts: groups that arrive one by one alternate.
        idlest = min(range(len(loads)), key=lambda index: (loads[index], self._num_new[index]))
        home = self._home(prompt_ids)
        if home is None or loads[home] >= loads[idlest] + self._max_lead:
            home = idlest
            self._num_new[home] += 1
        self.remember(prompt_ids, home)
        return home

    def remember(self, ids: tuple[int, ...], place: int) -> None:
        """The states of `ids` are at `place` now: a longer prompt that begins with them goes there."""
        self._homes[ids] = place
        self._homes.move_to_end(ids)
        while len(self._homes) > _MAX_HOMES:
            self._homes.popitem(last=False)

    def forget(self) -> None:
        """The places forgot what they computed."""
        self._homes.clear()
        self._num_new = [0] * len(self._num_new)

    def _home(self, ids: tuple[int, ...]) -> int | None:
        """The place of the longest known beginning of `ids`."""
        best, place = 0, None
        for known, home in self._homes.items():
            # The last id differs for most: that is looked at before all are compared.
            if best < len(known) <= len(ids) and known[-1] == ids[len(known) - 1] and known == ids[: len(known)]:
                best, place = len(known), home
        return place
