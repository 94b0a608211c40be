"""Experiments: one file is one result; run as `python -m experiments.NAME`; never installed."""
