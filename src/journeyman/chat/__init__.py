"""Messages to tokens and back: chat templates, tool calls, reasoning. Knows nothing of engines, HTTP or storage."""
