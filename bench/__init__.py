"""`make bench`: benchmarks of NexMDM as ratios to floors that are measured in the same run."""
