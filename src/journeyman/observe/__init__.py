"""What the program says about itself: progress, logs, metrics."""
