"""Tiny checkpoints in published layouts, written by the libraries of these layouts."""
