"""Draw one token a row from logits; log-probabilities are those of the unmodified distribution, whatever was drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from journeyman.engine.local.rows import Row

#: Below it nothing is drawn but the most likely token, and logits divided by it may be infinite.
_AS_GOOD_AS_GREEDY = 1e-8


def draw(logits_RV: Tensor, rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    """One token id and its natural-log probability (temperature 1, full support, no grammar) for each row. A row for which none can be
    drawn, because its grammar leads nowhere, has `failure` set, and its numbers mean nothing.

    Each row draws from its own seeded stream of uniform numbers by inversion of the cumulative distribution, so what runs beside it in
    the batch changes no more than rounding does. A greedy row (temperature 0) takes the most likely token.
    """
    logprobs_RV = torch.log_softmax(logits_RV, dim=-1)
    plain = [index for index, row in enumerate(rows) if _is_plain(row)]
    ids = torch.zeros(len(rows), dtype=torch.long, device=logits_RV.device)
    if plain:
        chosen = logprobs_RV if len(plain) == len(rows) else logprobs_RV[plain]
        ids[plain] = _invert(chosen.exp(), [rows[index].uniform.random() for index in plain])
    for index, row in enumerate(rows):
        if not _is_plain(row):
            try:
                ids[index] = _draw_modified(logits_RV[index], row)
            except BaseException as error:  # noqa: BLE001 - that row's: its grammar's code may panic
                row.failure = error
    picked = logprobs_RV.gather(1, ids[:, None])[:, 0]
    return ids.tolist(), picked.tolist()


def _is_plain(row: Row) -> bool:
    parameters = row.request.parameters
    return parameters.temperature == 1.0 and parameters.top_p == 1.0 and parameters.top_k == 0 and row.guide is None


def _invert(probs_RV: Tensor, uniforms: Sequence[float]) -> Tensor:
    cumulative_RV = probs_RV.cumsum(dim=-1)
    points_R1 = torch.tensor(uniforms, dtype=probs_RV.dtype, device=probs_RV.device)[:, None] * cumulative_RV[:, -1:]
    ids = torch.searchsorted(cumulative_RV, points_R1, right=True)[:, 0].clamp_(max=probs_RV.shape[-1] - 1)
    # Rounding in the sum may land on a token of probability 0 (masked): take the most likely one instead.
    impossible = probs_RV.gather(1, ids[:, None])[:, 0] <= 0.0
    return torch.where(impossible, probs_RV.argmax(dim=-1), ids)


def _draw_modified(logits_V: Tensor, row: Row) -> int:
    parameters = row.request.parameters
    logits_V = logits_V.clone()
    if row.guide is not None:
        logits_V.masked_fill_(~row.guide.mask().to(logits_V.device)[: len(logits_V)], float("-inf"))
    if parameters.temperature < _AS_GOOD_AS_GREEDY:
        return int(logits_V.argmax())
    logits_V = logits_V / parameters.temperature
    if 0 < parameters.top_k < len(logits_V):
        logits_V.masked_fill_(logits_V < logits_V.topk(parameters.top_k).values[-1], float("-inf"))
    probs_V = torch.softmax(logits_V, dim=-1)
    if parameters.top_p < 1.0:
        ordered, order = probs_V.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered > parameters.top_p
        probs_V = probs_V.index_fill(0, order[beyond], 0.0)
    return int(_invert(probs_V[None], [row.uniform.random()])[0])
