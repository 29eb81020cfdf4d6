"""Photos: finding them, reading them as 8-bit sRGB, and bringing them to size."""

from dslo_jax.images.finding import FoundPhoto as FoundPhoto, find_photos as find_photos
from dslo_jax.images.formats import (
    MAX_PIXELS as MAX_PIXELS,
    MIN_SIDE as MIN_SIDE,
)
from dslo_jax.images.label_ids import read_label_ids as read_label_ids
from dslo_jax.images.name_list import read_name_list as read_name_list
from dslo_jax.images.reading import Photo as Photo, read_photo as read_photo
from dslo_jax.images.resizing import (
    ResizeMethod as ResizeMethod,
    resize_photo as resize_photo,
    short_side_size as short_side_size,
)
