"""Where the examples of `method: sft` and `method: dpo` come from."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, model_validator

from journeyman.types.record import Record

#: What describes a data set, and what chooses among a run's attempts: one of them has no meaning for the other.
OF_SOURCE: Final = ("source", "split", "format", "columns", "skip_bad", "heldout_source", "heldout_split")
OF_RUN: Final = ("from_run", "min_reward", "max_per_task", "margin")


class DataSource(Record):
    """Examples from a data set, or from what a run of this home folder tried: one of `source` and `from_run`.

    Attributes:
        source: a file (JSON lines, JSON, CSV, Parquet), a folder, or the id of a data set on the Hugging Face hub. A file is looked for
            in the current folder, then beside the settings file.
        split: of a folder or data set.
        format: of the rows, e.g. messages; "auto": told by the columns.
        columns: our name of a column -> its name in the rows.
        skip_bad: leave faulty rows out and count them; otherwise the first of them stops the run.
        heldout_source, heldout_split: where the held-out examples are, when they are apart; else they are taken out of the source.
        num_heldout: held-out examples; never trained. A few more where a row or task has several: it is trained or held out as a whole.
        from_run: a run whose scored attempts are the examples, with their exact tokens.
    """

    source: str | None = None
    split: str | None = None
    format: str = "auto"
    columns: dict[str, str] = Field(default_factory=dict)
    skip_bad: bool = False
    heldout_source: str | None = None
    heldout_split: str | None = None
    num_heldout: int = Field(default=32, ge=0)
    from_run: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.source is None) == (self.from_run is None):
            raise ValueError("give one of `source` (a data set) and `from_run` (a run's own attempts)")
        of_source = [name for name in OF_SOURCE if name != "source"]
        given = [name for name in of_source if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True)]
        if self.from_run is not None and given:
            raise ValueError(f"{', '.join(given)} belong to `source`: leave them out with `from_run`")
        return self
