"""The torch engine: continuous batching on single-threaded workers, a KV cache that shares prompts, merged adapters."""
