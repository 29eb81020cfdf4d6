"""How much one request, and all of them together, may ask for."""

from dataclasses import dataclass

from dslo_jax.errors import OptionError


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Args:
        pixels: Greatest number of pixels of a photo, checked before decoding.
        photo_bytes: Greatest size of an image file.
        bodies_bytes: Greatest size of all files that are being received.
        json_bytes: Greatest size of any other request.
        text: Greatest number of characters of the words.
        classes: Greatest number of classes.
        names: Greatest number of names, with synonyms.
        name: Greatest number of characters of a name.
        waiting: Greatest number of tasks in a line.
        photos: Greatest number of photos that are kept.
        features: How many of these keep what the networks saw; an affinity of Stable
            Diffusion takes 64 MiB.
        results: Greatest number of results that are kept.
        drafts: The same for results that a moving slider makes.
        kept_bytes: Greatest size of all kept photos, and of all kept results.
        programs: Greatest number of compiled programs that are kept.
        view: Longest side of a photo on the page, in pixels.
        connections: Greatest number of connections at once.
        head_seconds: Time until the head of a request is whole.
        body_seconds: Time until the body of a request is whole.
        write_seconds: Time in which a client must take some of a response.

    Raises:
        OptionError: ``pixels`` is below 1 (``O01``).
    """

    pixels: int = 24_000_000
    photo_bytes: int = 32 * 2**20
    bodies_bytes: int = 128 * 2**20
    json_bytes: int = 32 * 2**10
    text: int = 4000
    classes: int = 64
    names: int = 128
    name: int = 80
    waiting: int = 16
    photos: int = 32
    features: int = 4
    results: int = 64
    drafts: int = 8
    kept_bytes: int = 256 * 2**20
    programs: int = 400
    view: int = 1600
    connections: int = 200
    head_seconds: float = 10
    body_seconds: float = 60
    write_seconds: float = 30

    def __post_init__(self):
        if self.pixels < 1:
            raise OptionError("O01", f"--max-pixels {self.pixels}; expected at least 1")
