"""Thin HTTP over the service: OpenAI-compatible routes, recorded rollouts, training, runs. Needs fastapi and uvicorn."""
