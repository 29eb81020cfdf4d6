"""Variants of CLIP's vision network that give features of every patch.

CLIP was trained to summarise a photo in its class token. Its last block mixes patches
so strongly that their features contain little about where objects are. Each variant
runs the blocks in another way. A new one is a file of this folder with a function and a
formula for its computation, and a line in ``registry.py``.
"""
