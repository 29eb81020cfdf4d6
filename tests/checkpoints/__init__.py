"""Tiny checkpoints in real layouts, made by the libraries whose layouts they are."""
