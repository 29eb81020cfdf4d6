"""Result files: labels, overlays, maps, JSON; files of many photos; exports."""

from dslo_jax.outputs.archives import write_tar as write_tar
from dslo_jax.outputs.coco import coco as coco
from dslo_jax.outputs.exports import EXPORTS as EXPORTS, write_export as write_export
from dslo_jax.outputs.files import (
    DEFAULT_FILES as DEFAULT_FILES,
    FILES as FILES,
    chosen_files as chosen_files,
    encode_json as encode_json,
    encode_maps as encode_maps,
    output_path as output_path,
    write_folder as write_folder,
)
from dslo_jax.outputs.labels import (
    encode_coloured as encode_coloured,
    encode_labels as encode_labels,
    read_labels as read_labels,
    save_labels as save_labels,
)
from dslo_jax.outputs.overlay import (
    draw_overlay as draw_overlay,
    encode_overlay as encode_overlay,
)
from dslo_jax.outputs.palette import hex_colours as hex_colours, palette as palette
from dslo_jax.outputs.saved import (
    SCHEMA as SCHEMA,
    SavedResult as SavedResult,
    read_results as read_results,
)
from dslo_jax.outputs.tables import write_parquet as write_parquet
