import pytest
import torch
from detectron2.data import MetadataCatalog
from tiny import CLASSES, JOINT, tiny_config, tiny_multitask_batch

from ldmseg_d2.meta_arch.build import build_classifier
from ldmseg_d2.meta_arch.segment_classes import MaskPooling, dataset_classes
from ldmseg_d2.modeling.class_head import MaskPoolingHead


def config(*opts, name=JOINT, classes=CLASSES):
    return tiny_config(name, *classes, *opts)


def pooling(**options):
    torch.manual_seed(0)
    head = MaskPoolingHead(in_channels=4, num_classes=4)
    return MaskPooling(dataset_classes(config()), head=head, image_size=64, **options)


def test_class_loss_is_the_weighted_mean_over_all_segments_that_have_a_class():
    classifier, batch = pooling(loss_weight=0.3), tiny_multitask_batch(4)
    features, losses = torch.randn(4, 4, 16, 16), []
    # Ids with gaps, a segment without a class, a picture without segments and one without classes.
    batch[0]["segment_ids"] = torch.tensor([0, 9, 4, 2, 30])[batch[0]["segment_ids"]]
    for segment, id_ in zip(batch[0]["segments_info"], (9, 4, 2, 30)):
        segment["id"] = id_
    batch[1]["segments_info"].pop()
    del batch[2]["segment_ids"], batch[3]["segments_info"]
    for one, entry in zip(features[:2], batch):
        for segment in entry["segments_info"]:
            mask = (entry["segment_ids"] == segment["id"]).long()
            log_probs = classifier.head(one, mask, 1).log_softmax(1)
            losses.append(-log_probs[0, segment["category_id"]])
    found = classifier.losses(features, batch)["loss_class"]
    torch.testing.assert_close(found, 0.3 * torch.stack(losses).mean())
    nothing = classifier.losses(features[2:], batch[2:])["loss_class"]
    nothing.backward()
    assert float(nothing.detach()) == 0
    # Processes exchange all gradients: there must be some.
    assert all(p.grad is not None and not p.grad.any() for p in classifier.parameters())
    batch[0]["segments_info"][0]["category_id"] = 4
    with pytest.raises(ValueError, match=r"0.png: segments_info holds class 4.*4 classes \(0..3"):
        classifier.losses(features, batch)


def test_pooled_probabilities_look_only_at_the_shown_part():
    """A picture of 32x64 in the square, whose result is twice as large."""
    classifier, features = pooling(), torch.randn(4, 16, 16)
    panoptic = torch.zeros(64, 128, dtype=torch.int32)
    panoptic[:, :64], panoptic[:32, 64:] = 40, 3
    decoded, entry = {"panoptic_seg": (panoptic, [{"id": 3}, {"id": 40}])}, {}
    entry["image"] = torch.zeros(3, 32, 64)
    probs = classifier.class_probs(decoded, entry, features)
    torch.testing.assert_close(probs.sum(0), torch.ones(64, 128))
    head = classifier.head
    for y, x, cells in ((10, 10, features[:, :8, :8]), (10, 100, features[:, :4, 8:])):
        expected = head.linear(head.norm(cells.mean((1, 2)))).softmax(0)
        torch.testing.assert_close(probs[1:, y, x], expected)
    assert probs[:, 50, 100].tolist() == [1, 0, 0, 0, 0]
    empty = {"panoptic_seg": (torch.zeros_like(panoptic), [])}
    assert bool((classifier.class_probs(empty, entry, features)[0] == 1).all())


@pytest.mark.parametrize("name", ["none", "semantic_task", "mask_pooling"])
def test_classes_are_given_and_segments_split_as_the_config_says(name):
    """Two regions of a thing that share an id, under classes that are sure of it."""
    panoptic = torch.zeros(8, 16, dtype=torch.int32)
    panoptic[2:6, 1:5] = panoptic[2:6, 9:13] = 2
    info, probs = [{"id": 2, "score": 1.0}], torch.zeros(5, 8, 16)
    probs[2] = 1
    decoded = {"panoptic_seg": (panoptic, info), "sem_seg": probs}

    def segments(split_area, **told):
        split = ("MODEL.LDMSEG.POSTPROCESS.SPLIT_AREA", split_area)
        classifier = build_classifier(config("MODEL.LDMSEG.CLASSIFIER", name, *split))
        if name == "mask_pooling":
            classifier.class_probs = lambda *args: probs
        output = classifier(decoded, {}, torch.zeros(1, 4, 4), **told)
        assert torch.equal(output["sem_seg"], probs[1:])
        return [(s["id"], s.get("category_id")) for s in output["panoptic_seg"][1]]

    if name == "none":
        assert segments(16) == [(2, None)]
        return
    assert segments(-1) == segments(17) == [(2, 1)]
    assert segments(16) == [(1, 1), (2, 1)]
    assert segments(16, given_ids=panoptic.long()) == [(2, 1)]
    assert segments(-1, given_classes={2: 3}) == [(2, 3)]


def test_classes_of_the_config_and_of_the_data_set(catalogs):
    assert dataset_classes(config()) == (4, (False, True, True, True))
    MetadataCatalog.get("own_train").set(
        stuff_classes=["sky", "car", "road"], thing_dataset_id_to_contiguous_id={17: 1}
    )
    for train, test in ((("own_train",), ()), ((), ("own_train",))):
        opts = ("DATASETS.TRAIN", train, "DATASETS.TEST", test)
        assert dataset_classes(config(*opts, classes=())) == (3, (False, True, False))
    opts = ("DATASETS.TRAIN", ("nothing_known",), "DATASETS.TEST", ())
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 0 and no data set of.*'nothing_known'"):
        dataset_classes(config(*opts, classes=()))
    with pytest.raises(ValueError, match=r"THING_CLASSES holds 4; .* 0..3"):
        dataset_classes(config("MODEL.LDMSEG.THING_CLASSES", [1, 4]))
