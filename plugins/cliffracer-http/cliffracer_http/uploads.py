"""Uploaded files: `UploadFile`, and `Uploads` for several under one name."""

from __future__ import annotations

from starlette.datastructures import UploadFile

__all__ = ["UPLOADS", "UploadFile", "Uploads"]


class Uploads(list[UploadFile]):
    """All files that were uploaded under one name."""


UPLOADS: tuple[type, ...] = (UploadFile, Uploads)
