"""Training and inference of other frameworks on the workloads of benchmarks.training, each in its own environment."""
