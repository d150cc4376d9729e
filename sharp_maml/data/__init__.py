"""Episodes from images: what lies on disk becomes a cache of pixels; episode i is a pure function of cache and seed.

Read next: `folders.py` (`open_dataset`, from a path to a cache), `forms.py` (what may lie there), `cache.py` (the form
that all data take), `episodes.py` (the sampler).
"""

from sharp_maml.data.cache import ClassImages, Dataset, open_cache, write_cache
from sharp_maml.data.episodes import EpisodeStream, Protocol, check_protocol, episode, episode_digest
from sharp_maml.data.folders import open_dataset
from sharp_maml.data.formats import Images
from sharp_maml.data.forms import DATA_FORMS, DataForm

__all__ = [
    "DATA_FORMS",
    "ClassImages",
    "DataForm",
    "Dataset",
    "EpisodeStream",
    "Images",
    "Protocol",
    "check_protocol",
    "episode",
    "episode_digest",
    "open_cache",
    "open_dataset",
    "write_cache",
]
