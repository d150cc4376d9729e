"""Episodes from images: what lies on disk becomes a cache of pixels; episode i is a pure function of cache and seed.

Read next: `folders.py` (`open_dataset`, from a path to a cache), `forms.py` (what may lie there), `cache.py` (the form
that all data take), `episodes.py` (the sampler), `loose.py` (images outside a data set).
"""

from sharp_maml.data.cache import ClassImages, Dataset, open_cache, write_cache
from sharp_maml.data.episodes import (
    EpisodeStream,
    Protocol,
    as_inputs,
    check_protocol,
    episode,
    episode_digest,
    episode_rows,
    pixels_as_inputs,
)
from sharp_maml.data.folders import form_of, open_dataset
from sharp_maml.data.formats import Images
from sharp_maml.data.forms import DATA_FORMS, DataForm
from sharp_maml.data.loose import Pixels, labelled_images, unlabelled_images
from sharp_maml.data.sheet import contact_sheet

__all__ = [
    "DATA_FORMS",
    "ClassImages",
    "DataForm",
    "Dataset",
    "EpisodeStream",
    "Images",
    "Pixels",
    "Protocol",
    "as_inputs",
    "check_protocol",
    "contact_sheet",
    "episode",
    "episode_digest",
    "episode_rows",
    "form_of",
    "labelled_images",
    "open_cache",
    "open_dataset",
    "pixels_as_inputs",
    "unlabelled_images",
    "write_cache",
]
