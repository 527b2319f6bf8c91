"""Decoded files in memory: the same samples, and every file that fits is decoded once."""

from collections import Counter

import numpy as np
import pytest
from detectron2.data import transforms as T

from ldmseg_d2.data import PanopticDatasetMapper, dataset_mapper, load_dataset_dicts
from ldmseg_d2.data.decoded_cache import DecodedCache

from .helpers import tiny_config
from .test_build import assert_same, batches

MAPPERS = ("PanopticDatasetMapper", "InstancesDatasetMapper", "PanopticDeepLabDatasetMapper")


def config(mapper="PanopticDatasetMapper", cache=0.0, **options):
    cfg = tiny_config(batch=3, **{"resize": "large_scale_jitter", **options})
    cfg.INPUT.LDMSEG.JITTER_SCALE = (0.8, 1.5)
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    cfg.DATALOADER.CACHE_GB = cache
    if mapper == "PanopticDeepLabDatasetMapper":
        cfg.INPUT.GAUSSIAN_SIGMA = 8
        cfg.INPUT.IGNORE_STUFF_IN_OFFSET = True
        cfg.INPUT.SMALL_INSTANCE_AREA = 4096
        cfg.INPUT.SMALL_INSTANCE_WEIGHT = 3
    return cfg


def flat(batch):
    """Instances have no equality: their masks instead."""
    for record in batch:
        if "instances" in record:
            record["instances"] = record["instances"].gt_masks.tensor
    return batch


@pytest.mark.parametrize("mapper", MAPPERS)
def test_samples_are_the_same(tiny, mapper):
    # Four epochs of five pictures.
    cached, expected = (batches(config(mapper, cache=gb), 7) for gb in (1.0, 0.0))
    assert_same([flat(b) for b in cached], [flat(b) for b in expected])


def test_samples_are_the_same_with_workers(tiny):
    assert_same(batches(config(cache=1.0, workers=2), 7), batches(config(), 7))


def test_samples_are_the_same_with_depth(tiny):
    cfg = config(cache=1.0)
    with_depth = [record for batch in batches(cfg, 4) for record in batch]
    assert all("depth" in record for record in with_depth)
    assert_same(batches(cfg, 4), batches(config(), 4))


@pytest.fixture
def decoded(monkeypatch):
    """How often each file was read."""
    counts = Counter()

    def counting(read):
        def count(path, *args):
            counts[path] += 1
            return read(path, *args)

        return count

    for name in ("read_photo", "read_id_png", "read_gray_png"):
        monkeypatch.setattr(dataset_mapper, name, counting(getattr(dataset_mapper, name)))
    return counts


@pytest.mark.parametrize("cache, times", [(1.0, {1}), (0.0, {4, 5})])
def test_every_file_is_decoded_once(tiny, decoded, cache, times):
    batches(config(cache=cache), 7)  # 21 samples of 5 pictures
    assert len(decoded) == 15 and set(decoded.values()) == times


def test_what_does_not_fit_is_decoded_anew(tiny, decoded):
    # A photo has 2304 bytes, ids 768, depth 3072: one picture and the next one's photo.
    cfg = config(cache=9000e-9)
    assert_same(batches(cfg, 7), batches(config(), 7))
    decoded.clear()
    batches(cfg, 7)
    assert Counter(decoded.values())[1] == 4 and sum(n > 1 for n in decoded.values()) == 11


def test_memory_is_bounded_and_what_came_first_stays():
    cache, made = DecodedCache(100), []

    def get(key, size):
        return cache(key, lambda: made.append(key) or np.full(size, key, np.uint8))

    assert [get(k, 40)[0] for k in (1, 2, 3, 1, 2, 3)] == [1, 2, 3, 1, 2, 3]
    assert made == [1, 2, 3, 3] and cache.num_bytes == 80 and len(cache) == 2
    # Once full, always full: a small file of a late picture would displace nothing, but cost a
    # place in the table for every picture.
    assert get(4, 1)[0] == 4 and len(cache) == 2


def test_a_kept_array_cannot_be_changed(tiny):
    class Darken(T.Augmentation):
        def get_transform(self, image):
            image //= 2
            return T.NoOpTransform()

    (record, *_) = load_dataset_dicts(["tiny"])
    mapper = PanopticDatasetMapper(augmentations=[Darken()], with_annotations=True, cache_gb=1.0)
    with pytest.raises(ValueError, match="read-only"):
        mapper(record)
    # What a sample holds is its own.
    mapper = PanopticDatasetMapper(augmentations=[], with_annotations=True, cache_gb=1.0)
    first = mapper(record)
    expected = {key: first[key].clone() for key in ("image", "segment_ids", "sem_seg", "depth")}
    for key in expected:
        first[key].zero_()
    first["segments_info"].clear()
    again = mapper(record)
    assert all(again[key].equal(value) for key, value in expected.items())
    assert again["segments_info"]


def test_one_png_may_be_listed_in_two_ways(tiny):
    (record, *_) = load_dataset_dicts(["tiny"])
    turned = {**record, "segments_info": record["segments_info"][::-1]}
    agnostic = {key: value for key, value in record.items() if key != "segments_info"}
    options = {"augmentations": [], "with_annotations": True}
    cached = PanopticDatasetMapper(**options, cache_gb=1.0)
    for entry in (record, turned, agnostic, record, turned, agnostic):
        expected = PanopticDatasetMapper(**options)(entry)
        assert_same([[cached(entry)]], [[expected]])


def test_a_negative_size_names_the_key(tiny):
    with pytest.raises(ValueError, match="DATALOADER.CACHE_GB must be at least 0"):
        batches(config(cache=-1.0), 1)
