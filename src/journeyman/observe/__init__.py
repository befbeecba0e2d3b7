"""What the program says about itself: progress, logs, findings in the metrics of a run."""
