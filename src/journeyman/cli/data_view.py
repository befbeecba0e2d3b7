"""A preview of training data on the terminal: trained tokens in colour, given ones faint. Not for what is in it: `data_preview.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from journeyman.cli.console import styled
from journeyman.cli.data_preview import Preview, Rendered, histogram

if TYPE_CHECKING:
    from rich.text import Text

    from journeyman.cli.console import Terminal

GIVEN, TRAINED, STOP = "dim", "bold green", "bold white on green"
_REJECTED, _REJECTED_STOP = "bold red", "bold white on red"
_MARKS = ("⟦", "⟧")  # stand around what is trained where there are no colours
_BAR = 40
_LONGEST_GIVEN = 600  # characters of one given text, unless all is asked for
_NUM_FAULTS = 5
# Control characters as pictures: a data set must not steer the terminal.
_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "␡"}


def show(console: Terminal, preview: Preview, source: str, *, num_shown: int, is_cut: bool, by_token: bool, is_full: bool) -> None:
    """Print what was found, how long the examples are, and the first of them."""
    loaded = preview.loaded
    console.print(styled((source, "bold"), f": {loaded.note}"))
    if is_cut:
        console.print(styled((f"only the first {loaded.num_rows} rows were read", "yellow"), " (--limit 0 reads all)"))
    for fault in loaded.faults:
        console.print(f"  {fault}", style="red")
    console.print(styled("as tokens of ", (preview.base, "bold"), f", {preview.template}, context {preview.renderer.context_length}"))
    _show_counts(console, preview)
    for fault in preview.faults[:_NUM_FAULTS]:
        console.print(styled(("would be refused:", "red"), f" {fault}"))
    if len(preview.faults) > _NUM_FAULTS:
        console.print(f"and {len(preview.faults) - _NUM_FAULTS} more would be refused", style="red")
    if num_shown and preview.rendered:
        console.print()
        console.print(_legend(has_pairs=bool(preview.rendered[0].side), has_colour=_has_colour(console)))
    for one in preview.rendered:
        if one.number > num_shown:
            break
        _show_one(console, preview, one, by_token=by_token, is_full=is_full)


def as_record(preview: Preview, num_shown: int) -> dict[str, Any]:
    """The preview as JSON values."""
    loaded = preview.loaded
    return {
        "format": loaded.format,
        "used": loaded.used,
        "unused": loaded.unused,
        "num_rows": loaded.num_rows,
        "num_bad": loaded.num_bad,
        "faults": [*loaded.faults, *preview.faults],
        "num_examples": len(loaded.examples),
        "base": preview.base,
        "context_length": preview.renderer.context_length,
        "num_tokens": preview.num_tokens,
        "num_trained_tokens": preview.num_trained,
        "length_median": preview.median_length,
        "length_max": max(preview.lengths, default=0),
        "histogram": [{"from": first, "to": last, "count": count} for first, last, count in histogram(preview.lengths)],
        "examples": [
            {
                "number": one.number,
                "side": one.side,
                "token_ids": one.token_ids,
                "is_trained": one.is_trained,
                "spans": [{"text": preview.renderer.decode(ids), "is_trained": is_trained} for is_trained, ids in _spans(one)],
            }
            for one in preview.rendered
            if one.number <= num_shown
        ],
    }


def _show_counts(console: Terminal, preview: Preview) -> None:
    if not preview.rendered:
        return
    share = preview.num_trained / preview.num_tokens
    unit = "example" if not preview.rendered[0].side else "side of a pair"
    console.print(
        f"{preview.num_tokens:,} tokens, {preview.num_trained:,} of them trained ({share:.1%}); "
        f"a {unit} has {preview.median_length:,.0f} (median), at most {max(preview.lengths):,}".replace("a example", "an example")
    )
    bins = histogram(preview.lengths)
    most = max(count for _, _, count in bins)
    width = len(f"{bins[-1][1]:,}")
    for first, last, count in bins:
        bar = "█" * round(_BAR * count / most) or ("▏" if count else "")
        lengths = f"{first:>{width},} to {last:>{width},}" if first < last else f"{first:>{width},}"
        console.print(styled(f"  {lengths}  ", (bar, "cyan"), f" {count or ''}"))


def _legend(*, has_pairs: bool, has_colour: bool) -> Text:
    from rich.text import Text

    if not has_colour:
        return Text(f"{_MARKS[0]}trained{_MARKS[1]}, the rest is given")
    words = [("given", GIVEN), ("trained", TRAINED), ("the token that ends a reply", STOP)]
    if has_pairs:
        words[1:2] = [("made likelier", TRAINED), ("made less likely", _REJECTED)]
    return Text("  ").join([Text(word, style) for word, style in words])


def _show_one(console: Terminal, preview: Preview, one: Rendered, *, by_token: bool, is_full: bool) -> None:
    from rich.rule import Rule

    title = f"example {one.number}" if not one.side else f"pair {one.number}, {one.side}"
    console.print()
    heading = styled((title, "bold"), f": {len(one.token_ids)} tokens, {one.num_trained} trained")
    console.print(Rule(heading, align="left", style="dim"))
    console.print(_text(preview, one, has_colour=_has_colour(console), by_token=by_token, is_full=is_full))


def _text(preview: Preview, one: Rendered, *, has_colour: bool, by_token: bool, is_full: bool) -> Text:
    from rich.text import Text

    before, after = ("", "") if has_colour else _MARKS
    text = Text()
    for is_trained, ids in _spans(one):
        text.append(before if is_trained else "")
        for part, style in _styled(ids, _styles(one, is_trained=is_trained), preview.renderer.stop_token_ids):
            if by_token:
                for token in part:
                    text.append(_visible(preview.renderer.decode([token])), style)
                    text.append("│", "dim cyan")
            else:
                spelt = _plain(preview.renderer.decode(part))
                text.append(spelt if is_trained or is_full else _shortened(spelt), style)
        text.append(after if is_trained else "")
    return text


def _styles(one: Rendered, *, is_trained: bool) -> tuple[str, str]:
    """The styles of tokens and of stop tokens."""
    if not is_trained:
        return GIVEN, GIVEN
    return (_REJECTED, _REJECTED_STOP) if one.side == "rejected" else (TRAINED, STOP)


def _styled(ids: list[int], styles: tuple[str, str], stop_token_ids: tuple[int, ...]) -> Iterator[tuple[list[int], str]]:
    """Runs of tokens of one style."""
    for style, group in groupby(ids, lambda token: styles[token in stop_token_ids]):
        yield list(group), style


def _spans(one: Rendered) -> Iterator[tuple[bool, list[int]]]:
    """Runs of tokens that are all trained, or all given."""
    for is_trained, group in groupby(zip(one.is_trained, one.token_ids, strict=True), lambda pair: pair[0]):
        yield is_trained, [token for _, token in group]


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_GIVEN:
        return text
    half = _LONGEST_GIVEN // 2
    return f"{text[:half]} […{len(text) - 2 * half:,} characters…] {text[-half:]}"


def _plain(text: str) -> str:
    return text.translate(_PICTURES)


def _visible(text: str) -> str:
    """A token with its spaces and line ends seen."""
    return _plain(text).replace(" ", "·").replace("\t", "→").replace("\n", "⏎\n")


def _has_colour(console: Terminal) -> bool:
    return console.color_system is not None and not console.no_color
