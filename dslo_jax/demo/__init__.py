"""The main job on drawn scenes, with small networks that were trained on them."""
