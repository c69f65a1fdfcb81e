"""Tests of the checkpoint layouts."""
