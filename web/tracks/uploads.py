"""Where a file goes while it is received: into one that has no name, so that nothing of it can stay behind."""

from __future__ import annotations

import tempfile
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler


class NamelessUploadHandler(FileUploadHandler):
    """For what is too large for memory: even a process that is killed leaves no picture, and no place in its EXIF."""

    def new_file(self, *arguments: Any, **names: Any) -> None:
        super().new_file(*arguments, **names)
        self.file = UploadedFile(
            tempfile.TemporaryFile(),  # noqa: SIM115 - Django closes it with the request
            self.file_name,
            self.content_type,
            0,
            self.charset,
            self.content_type_extra,
        )

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile:
        self.file.seek(0)
        self.file.size = file_size
        return self.file

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
