"""Take a trained version out of Journeyman: a PEFT folder, merged weights, or a GGUF file, checked after writing. Not for serving."""
