"""Evaluation: how well describers do, side by side, and the gate between tuning and serving."""
