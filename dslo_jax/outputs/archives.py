"""Results of many photos in a tar archive, in the layout of WebDataset."""

import io
import os
import tarfile
from collections.abc import Mapping

from dslo_jax.files import atomic_file
from dslo_jax.outputs.files import FILES


_ENDINGS = {FILES["json"]: "json"}  # the usual ending in WebDataset


def write_tar(
    path: str | os.PathLike[str], photos: Mapping[str, Mapping[str, bytes]]
) -> None:
    """Write results into a tar as WebDataset reads it, whole or not at all.

    A member is ``KEY.labels.png``, ``KEY.json``, ``KEY.overlay.jpg`` and so on. The key
    is the name of the photo with ``.`` as ``%2E`` and ``%`` as ``%25``, because a key
    of WebDataset ends at the first dot; ``urllib.parse.unquote`` gives the name. Equal
    results give equal bytes: members have no time and no owner.

    Args:
        path: The tar to write.
        photos: Name of each photo to its files, as of ``Segmentation.files``.

    Raises:
        OSError: The file cannot be written.
    """
    with (
        atomic_file(path) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, files in photos.items():
            key = name.replace("%", "%25").replace(".", "%2E")
            for file_name, content in files.items():
                ending = _ENDINGS.get(file_name, file_name)
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
