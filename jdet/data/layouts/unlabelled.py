"""Images without labels: nothing to train on, and good for prediction and for conversion."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from jdet.data.layouts.listing import Listing
from jdet.data.layouts.records import ImageRecord, attempt
from jdet.data.layouts.source import Folder, FolderSource
from jdet.data.layouts.words import by_folder, split_of_folder

TITLE = "images"
FORM = "images, without labels"


def find(listing: Listing) -> dict[str, str]:
    """Splits of a folder of images → one of each."""
    return by_folder(listing.images)


class ImagesSource(FolderSource):
    """Images without objects; the classes are those that are given, or that the folder lists."""

    title = TITLE

    def _records(self, folder: Folder) -> Iterator[ImageRecord]:
        for image in folder.images.images:
            path, split = folder.images.path(image), split_of_folder(image)
            read = functools.partial(_read, folder, path, split, image)
            yield attempt(path, split, read)


def _read(folder: Folder, where: str, split: str, image: str) -> ImageRecord:
    return ImageRecord(where, folder.image(image, ""), split)
