"""Colours of things whose colour everybody knows: grass is green, the sky is blue."""

from collections.abc import Mapping
from types import MappingProxyType


# The colours were chosen near that of each thing, and moved until the closest two are
# as far apart as possible, for normal eyes and for the three kinds of colour blindness.
# A test states the smallest distance.
_THINGS = {
    ("sky", "heavens"): 0x78CCFD,
    ("cloud", "clouds"): 0xC7EEFF,
    ("mountain", "peak", "hill", "rock", "stone"): 0x807D9B,
    ("sea", "ocean", "water", "river", "lake"): 0x0A60E5,
    ("grass", "meadow", "lawn", "field"): 0x81BE65,
    ("sand", "beach", "ground", "earth"): 0xECDBA0,
    ("road", "street", "pavement", "sidewalk"): 0x584A60,
    ("sun", "sunshine"): 0xFFC700,
    ("moon",): 0xFFFFD0,
    ("house", "cottage", "building"): 0xAD5361,
    ("tree", "trees", "forest", "vegetation", "plant"): 0x1E6C27,
    ("fence", "picket fence", "wood"): 0xAD7D40,
    ("flower", "blossom"): 0xD97BD8,
    ("boat", "ship"): 0x2B2F66,
    ("car", "automobile"): 0xCD0008,
    ("ball",): 0xFF8804,
    ("sheep", "lamb"): 0xC2C3BA,
    ("umbrella", "parasol"): 0x8A3FB0,
    ("bird",): 0x242325,
    ("balloon", "hot-air balloon"): 0x3EAD97,
}

NATURAL_COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        name: (colour >> 16, colour >> 8 & 0xFF, colour & 0xFF)
        for names, colour in _THINGS.items()
        for name in names
    }
)
"""The sRGB colour, 0 to 255, of each name in small letters."""
