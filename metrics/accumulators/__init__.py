"""torchmetrics classes around `metrics.functional`: update batch by batch, on any number of processes."""
