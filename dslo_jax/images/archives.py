"""The images in tar archives in the layout of WebDataset, without extracting them."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dslo_jax.images.parts import Member, Unreadable


_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


def images_of_archive(
    path: Path, is_image: Callable[[str], bool]
) -> Iterator[Member | Unreadable]:
    """List the images in an archive, in its order, by reading its headers once.

    Only regular members count; a link leads nowhere. Nothing is extracted, and names
    are only shown, so a hostile name does no harm.

    Args:
        path: A tar archive that is not compressed.
        is_image: Whether the file name of a member is that of an image.

    Yields:
        The images. Where the archive cannot be read any further, the last one is
        ``Unreadable``.
    """
    count = 0
    try:
        with path.open("rb") as file:
            if file.read(6).startswith(_COMPRESSED):
                reason = (
                    f"{str(path)!r} is a compressed archive, whose members cannot be "
                    "read one by one; decompress it first, as with gunzip"
                )
                yield Unreadable("I02", reason)
                return
        opened: Any = tarfile.open(path, "r:", encoding="utf-8")  # noqa: SIM115
        with opened as archive:
            before = -1
            while (info := archive.next()) is not None:
                if archive.offset <= before or info.size < 0:
                    raise tarfile.ReadError("a member has a negative size")
                before = archive.offset
                archive.members.clear()  # else they are all kept in memory
                count += 1
                if info.isreg() and not info.issparse() and is_image(info.name):
                    yield Member(info.name, info.offset_data, info.size)
    except Exception as error:  # hostile headers raise errors of many kinds
        found = "no tar archive" if count == 0 else f"damaged after {count} members"
        yield Unreadable("I03", f"{str(path)!r} is {found}: {error}; copy it again")
