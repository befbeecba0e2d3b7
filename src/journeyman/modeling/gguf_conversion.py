"""`python -m journeyman.modeling.gguf_conversion FILE.gguf FOLDER`: de-quantise a GGUF file into a float32 Hugging
Face folder.

Run as a child process by `modeling.wheel_models`; nothing else uses it. transformers does the de-quantising. Two
things stand in its way: a model loaded from a quantised GGUF refuses `save_pretrained`, so its weights move into a
fresh model first; and tied embeddings must stay tied, so that the output head is not written twice.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def convert(gguf: Path, folder: Path) -> None:
    """Write `folder` (config, tokenizer with its chat template, model.safetensors in float32) from one GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    quantised: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh: Any = type(quantised)(config)
    fresh.load_state_dict(quantised.state_dict())
    fresh.tie_weights()
    fresh.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m journeyman.modeling.gguf_conversion FILE.gguf FOLDER", file=sys.stderr)
        return 2
    convert(Path(arguments[0]), Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
