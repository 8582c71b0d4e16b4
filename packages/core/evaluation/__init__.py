"""Judging a diagnoser: metrics with intervals, calibration, the report."""
