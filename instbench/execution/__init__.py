"""Stages of a run (plan, generate, observe, score) and the executors that drive them."""
