"""A small drawn world with exact labels: its classes, scenes and captions."""

from dslo_jax.scenes.captions import caption as caption, wordings as wordings
from dslo_jax.scenes.classes import (
    BACKGROUND as BACKGROUND,
    CLASSES as CLASSES,
    FOREGROUND as FOREGROUND,
    NAMES as NAMES,
    SceneClass as SceneClass,
    foreground_labels as foreground_labels,
    scene_names as scene_names,
)
from dslo_jax.scenes.scene import (
    FIRST_TRAINING_SEED as FIRST_TRAINING_SEED,
    HELD_OUT_SEEDS as HELD_OUT_SEEDS,
    SIZES as SIZES,
    VERSION as VERSION,
    Scene as Scene,
    draw_scene as draw_scene,
    random_crop as random_crop,
)
