"""What to export: format, number type, quantisation. A combination that means nothing is refused."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from journeyman.types.record import Record

Format = Literal["peft", "merged", "gguf"]
Dtype = Literal["float32", "bfloat16"]
Quant = Literal["f16", "q8_0"]

_BYTES = {"float32": 4.0, "bfloat16": 2.0, "f16": 2.0, "q8_0": 34 / 32}
_SMALL_FILES = 50_000_000


class ExportSettings(Record):
    """`dtype` is of the merged weights, `quant` of a GGUF file.

    Attributes:
        format: `peft` (the adapter), `merged` (safetensors), `gguf` (one file, with a Modelfile for Ollama).
        dtype: `float32` answers exactly as the served version does; `bfloat16` has half the size and may differ at close choices.
        quant: `f16`, or `q8_0` (blocks of 32 weights with one scale).
    """

    format: Format = "peft"
    dtype: Dtype = "float32"
    quant: Quant = "f16"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = self.model_fields_set
        if "dtype" in given and self.format != "merged":
            raise ValueError(f"dtype is of merged weights; {self.format} has {'its own types' if self.format == 'gguf' else 'float32'}")
        if "quant" in given and self.format != "gguf":
            raise ValueError(f"quant is of GGUF files, not of {self.format}")
        return self

    @property
    def name(self) -> str:
        """A word for file names: peft, merged, merged-bfloat16, gguf-f16, gguf-q8_0."""
        if self.format == "gguf":
            return f"gguf-{self.quant}"
        return self.format if self.dtype == "float32" else f"{self.format}-{self.dtype}"

    @property
    def words(self) -> str:
        """The kind of export in words."""
        if self.format == "peft":
            return "LoRA adapter (PEFT)"
        return f"Merged weights ({self.dtype})" if self.format == "merged" else f"GGUF file ({self.quant}) with merged weights"

    def bytes_needed(self, num_parameters: int) -> int:
        """Room on disk for a model of so many parameters, generously."""
        if self.format == "peft":
            return _SMALL_FILES * 4
        return int(num_parameters * _BYTES[self.dtype if self.format == "merged" else self.quant]) + _SMALL_FILES
