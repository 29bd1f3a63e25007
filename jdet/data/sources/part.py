"""A part of the images of a source, chosen by their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from jdet.data.readers.settings import ImageSettings
from jdet.data.readers.survey import Survey
from jdet.data.sources.annotations import Defect
from jdet.types import DataError, Example, ImageKind, Source


class Part:
    """Some images of a source, in its order.

    Attributes:
        class_names: of the source.
        category_ids: of the source; empty where it has none.
        has_masks: of the source; not there where the source does not say.
        image_settings: of the source.
        file_pattern: of the source; "" where it has none.
        image_ids: of the source, for the images of this part; empty where it has none.

    Args:
        source: the whole set.
        chosen: whether the image of a name belongs to the part.
        places: of these images in the source, where they are known; None: found by the names.
    """

    def __init__(
        self, source: Source, chosen: Callable[[str], bool], places: Sequence[int] | None = None
    ):
        self.class_names = source.class_names
        self.category_ids = tuple(getattr(source, "category_ids", ()))
        if hasattr(source, "has_masks"):
            self.has_masks = source.has_masks
        self.image_settings = getattr(source, "image_settings", ImageSettings())
        self.file_pattern = getattr(source, "file_pattern", "")
        self._source, self._chosen = source, chosen
        if places is None:
            ids = getattr(source, "ids", None) or (source[i].id for i in range(len(source)))
            places = [i for i, id in enumerate(ids) if chosen(id)]
        self._index = list(places)
        image_ids = getattr(source, "image_ids", ())
        self.image_ids = tuple(image_ids[i] for i in self._index) if image_ids else ()

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._index[index]]

    @property
    def image_paths(self) -> tuple[str, ...]:
        """Files of the images of this part; empty where the source does not say."""
        paths = getattr(self._source, "image_paths", ())
        return tuple(paths[i] for i in self._index) if paths else ()

    @property
    def image_survey(self) -> Survey | None:
        """Of the whole source; None where it has none."""
        return getattr(self._source, "image_survey", None)

    @property
    def image_kind(self) -> ImageKind:
        """What the images of the whole source are, so that all parts agree."""
        return ImageKind.of(self._source)

    def image_size(self, index: int) -> tuple[int, int] | None:
        """Height and width of the original image; None where the source does not know it."""
        size = getattr(self._source, "image_size", None)
        return size(self._index[index]) if size else None

    @property
    def defects(self) -> list[Defect]:
        """Those of the source that belong to this part, images it skipped included."""
        return [one for one in getattr(self._source, "defects", ()) if self._chosen(one.id)]

    def describe(self) -> str:
        """One line: how many images of which source."""
        source = self._source
        whole = source.describe() if hasattr(source, "describe") else type(source).__name__
        return f"{len(self)} of {len(source)} images, split by name, of {whole}"


class Named:
    """Chooses images by a hash of their names, so that one stays chosen when others come or go."""

    def __init__(self, share: float):
        self.share = share

    def __call__(self, name: str) -> bool:
        """Whether an image belongs to the share; a smaller share is a part of a larger one."""
        # Other bytes than those by which a holdout is chosen, so that the two are independent.
        number = int.from_bytes(hashlib.md5(name.encode()).digest()[4:8], "big")
        return number < self.share * 2**32


def share_of(source: Source, share: float) -> Part:
    """About a share of the images of a source.

    Raises:
        DataError: it holds none.
    """
    part = Part(source, Named(share))
    if not len(part):
        raise DataError(
            f"config.data.share={share:g} leaves none of {len(source)} training images; take a larger one"
        )
    return part
