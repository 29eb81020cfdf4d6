"""Segmentation of drawn scenes with small networks that were trained on such scenes."""
