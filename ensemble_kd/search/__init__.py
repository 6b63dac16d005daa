"""Searching for good values with Optuna: ``python -m ensemble_kd.search``."""
