"""Stores that are full or away: not the fault of the step that notices it, which may be tried as often as need be."""

import errno

from obstore.exceptions import BaseError as BlobError

from app import database

OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


def is_outage(error: BaseException) -> bool:
    """Whether a disk is full or cannot be written, or the database or the blob store does not answer as it should."""
    return isinstance(error, (BlobError, *database.AWAY)) or (isinstance(error, OSError) and error.errno in OF_DISKS)
