"""Result files: overlays with a legend, label maps, discrepancy maps and JSON."""

from dslo_jax.outputs.files import (
    output_path as output_path,
    save_json as save_json,
    save_maps as save_maps,
)
from dslo_jax.outputs.labels import (
    class_areas as class_areas,
    read_labels as read_labels,
    save_labels as save_labels,
)
from dslo_jax.outputs.overlay import draw_overlay as draw_overlay
from dslo_jax.outputs.palette import palette as palette, voc_palette as voc_palette


DEFAULT_FILES = ("labels", "overlay", "maps", "json")
