"""Prompt templates: the sentences that a class name is put into."""

import string
from collections.abc import Sequence

from dslo_jax.errors import ClassListError


# The ensemble of OpenAI's CLIP, in its order (notebooks/Prompt_Engineering_for_ImageNet
# of github.com/openai/CLIP, MIT licence).
IMAGENET_TEMPLATES = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)


def find_templates(choice: str | tuple[str, ...]) -> tuple[str, ...]:
    """Find the templates of a choice.

    Args:
        choice: ``"imagenet"`` for the 80 of OpenAI, ``"single"`` for one, or the
            templates themselves.

    Returns:
        The templates.

    Raises:
        ClassListError: As for ``check_templates``.
    """
    if choice == "imagenet":
        return IMAGENET_TEMPLATES
    if choice == "single":
        return ("a photo of a {}.",)
    return check_templates(choice)


def check_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Check prompt templates.

    Args:
        templates: Texts with one ``{}`` each.

    Returns:
        The templates.

    Raises:
        ClassListError: There is none, or one of them does not hold exactly one ``{}``
            (``C05``).
    """
    if isinstance(templates, str):
        raise ClassListError(
            "C05",
            f"`templates` is the string {templates!r}; did you mean [{templates!r}]?",
        )
    if not templates:
        raise ClassListError(
            "C05", "there is no template; pass at least one, such as '{}'"
        )
    for template in templates:
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError:
            parts = []
        fields = [part[1:] for part in parts if part[1] is not None]
        if fields != [("", "", None)]:
            raise ClassListError(
                "C05",
                f"the template {template!r} must hold {{}} exactly once, where the "
                "name goes, and no other braces",
            )
    return tuple(templates)
