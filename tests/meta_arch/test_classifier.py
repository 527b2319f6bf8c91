import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from tiny import CLASSES, JOINT, LDMSEG, tiny_config, tiny_multitask_batch

from ldmseg_d2.meta_arch.build import build_classifier
from ldmseg_d2.meta_arch.condition import build_supervision
from ldmseg_d2.meta_arch.tasks import dataset_classes
from ldmseg_d2.meta_arch.tasks.classifier import (
    MaskPooling,
    SegmentClassifier,
    SemanticVote,
    class_head_loss,
    pooled_class_probs,
    segment_classes,
)
from ldmseg_d2.modeling.class_head import MaskPoolingHead

CELL_LOSS = "MODEL.LDMSEG.IMAGE_ENCODER.CELL_LOSS_WEIGHT"


def config(*opts, name=JOINT, classes=CLASSES):
    return tiny_config(name, *classes, *opts)


def one_hot_features(entry, size=16):
    """(4, size, size) share of each class in every cell."""
    one_hot = torch.stack([(entry["sem_seg"] == c).float() for c in range(4)])
    return torch.nn.functional.adaptive_avg_pool2d(one_hot, size)


@pytest.fixture
def head():
    torch.manual_seed(0)
    return MaskPoolingHead(in_channels=4, num_classes=4)


def trained(head, batch, steps=60):
    features = torch.stack([one_hot_features(entry) for entry in batch])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = class_head_loss(head, features, batch, 64)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return features, losses


def test_class_head_learns_what_the_features_tell(head):
    batch = tiny_multitask_batch(4)
    features, losses = trained(head, batch)
    assert losses[-1] < 0.1 * losses[0] and losses[-1] < 0.15
    # Another picture, whose segments have other ids: its classes are recognised.
    entry = tiny_multitask_batch(1, seed=9)[0]
    panoptic = (entry["segment_ids"] * 7).int()
    segments_info = [
        {"id": 7 * s["id"], "category_id": 0, "isthing": True, "score": 0.5, "area": 1}
        for s in entry["segments_info"]
    ]
    classifier = MaskPooling(dataset_classes(config()), head=head, image_size=64, loss_weight=0.1)
    output = classifier({"panoptic_seg": (panoptic, segments_info)}, entry, one_hot_features(entry))
    found = {s["id"]: s["category_id"] for s in output["panoptic_seg"][1]}
    assert found == {7 * s["id"]: s["category_id"] for s in entry["segments_info"]}
    shown = entry["sem_seg"] != 255
    assert torch.equal(output["sem_seg"].argmax(0)[shown], entry["sem_seg"][shown])
    assert not output["sem_seg"][:, ~shown].any()
    assert len(output["instances"]) == sum(s["category_id"] > 0 for s in entry["segments_info"])
    loss = classifier.losses(features, batch)["loss_class"]
    assert float(loss.detach()) == pytest.approx(
        0.1 * float(class_head_loss(head, features, batch, 64).detach())
    )


def test_class_loss_is_the_mean_over_all_segments_of_the_batch(head):
    batch = tiny_multitask_batch(3)
    features = torch.stack([one_hot_features(entry) for entry in batch])
    losses = []
    for one, entry in zip(features, batch, strict=True):
        for segment in entry["segments_info"]:
            mask = (entry["segment_ids"] == segment["id"]).long()
            log_probs = head(one, mask, 1).log_softmax(1)
            losses.append(-log_probs[0, segment["category_id"]])
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(class_head_loss(head, features, batch, 64), expected)


def test_segments_without_a_class_teach_nothing(head):
    batch = tiny_multitask_batch(3)
    features = torch.stack([one_hot_features(entry) for entry in batch])
    expected = class_head_loss(head, features[:1], batch[:1], 64)
    del batch[1]["segments_info"], batch[2]["segment_ids"]
    torch.testing.assert_close(class_head_loss(head, features, batch, 64), expected)
    nothing = class_head_loss(head, features[1:], batch[1:], 64)
    nothing.backward()
    assert float(nothing) == 0
    # Processes exchange all gradients: there must be some.
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_a_class_that_the_model_lacks_raises():
    head = MaskPoolingHead(in_channels=4, num_classes=3)
    batch = tiny_multitask_batch(1)
    with pytest.raises(ValueError, match=r"0.png: segments_info holds class 3.*3 classes \(0..2"):
        class_head_loss(head, torch.zeros(1, 4, 16, 16), batch, 64)


def test_classes_follow_the_segments_when_they_are_renumbered():
    ids = torch.tensor([[0, 2, 2], [5, 5, 9]])
    entry = {
        "segment_ids": ids,
        "segments_info": [{"id": 9, "category_id": 1}, {"id": 2, "category_id": 3}],
    }
    padded = torch.tensor([[0, 2, 2, 0], [1, 1, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert segment_classes(entry, padded).tolist() == [-1, 3, 1]
    assert segment_classes(dict(entry, segments_info=[]), padded).tolist() == [-1, -1, -1]


def test_pooled_probabilities_look_only_at_the_shown_part(head):
    """A picture of 32x64 in the square, whose result is twice as large."""
    torch.manual_seed(1)
    features = torch.randn(4, 16, 16)
    panoptic = torch.zeros(64, 128, dtype=torch.int32)
    panoptic[:, :64], panoptic[:32, 64:] = 40, 3
    info = [{"id": 3}, {"id": 40}]
    probs = pooled_class_probs(head, features, (panoptic, info), size=(32, 64), side=64)
    assert probs.shape == (5, 64, 128)
    torch.testing.assert_close(probs.sum(0), torch.ones(64, 128))
    whole = head.linear(head.norm(features[:, :8, :8].mean((1, 2)))).softmax(0)
    corner = head.linear(head.norm(features[:, :4, 8:].mean((1, 2)))).softmax(0)
    torch.testing.assert_close(probs[1:, 10, 10], whole)
    torch.testing.assert_close(probs[1:, 10, 100], corner)
    assert probs[:, 50, 100].tolist() == [1, 0, 0, 0, 0]
    nothing = pooled_class_probs(
        head, features, (torch.zeros_like(panoptic), []), size=(32, 64), side=64
    )
    assert bool((nothing[0] == 1).all()) and not nothing[1:].any()


def test_no_semantic_map_no_classes():
    entry = tiny_multitask_batch(1)[0]
    panoptic_seg = entry["segment_ids"].int(), [{"id": 1, "category_id": 0, "isthing": True}]
    vote = SemanticVote(dataset_classes(config()))
    output = vote({"panoptic_seg": panoptic_seg}, entry, torch.zeros(1, 4, 4))
    assert output == {"panoptic_seg": panoptic_seg}
    only = vote({"sem_seg": torch.rand(5, 8, 8)}, entry, torch.zeros(1, 4, 4))
    assert set(only) == {"sem_seg"} and only["sem_seg"].shape == (4, 8, 8)


@pytest.mark.parametrize("name", ["semantic_task", "mask_pooling"])
def test_split_area_reaches_the_outputs_of_either_classifier(name):
    """Two regions of a thing that share an id, under classes that are sure of it."""
    key = "MODEL.LDMSEG.POSTPROCESS.SPLIT_AREA"
    panoptic = torch.zeros(8, 16, dtype=torch.int32)
    panoptic[2:6, 1:5] = panoptic[2:6, 9:13] = 2
    decoded = {"panoptic_seg": (panoptic, [{"id": 2, "score": 1.0}])}
    classes = dataset_classes(config())
    probs = torch.zeros(classes.num_classes + 1, 8, 16)
    probs[classes.is_thing.index(True) + 1] = 1

    def segments(*opts, **entry):
        classifier = build_classifier(config("MODEL.LDMSEG.CLASSIFIER", name, *opts))
        classifier.class_probs = lambda *args: probs
        output = classifier(decoded, entry, torch.zeros(1, 4, 4))
        assert len(output["instances"]) == len(output["panoptic_seg"][1])
        return [(s["id"], s["area"]) for s in output["panoptic_seg"][1]]

    assert segments() == [(2, 32)]
    assert segments(key, 16) == [(1, 16), (2, 16)]
    assert segments(key, 17) == [(2, 32)]
    assert segments(key, 16, given=panoptic.long()) == [(2, 32)]
    given = torch.zeros(8, 16, dtype=torch.int64)
    given[3, 10] = 2
    assert segments(key, 16, given=given) == [(1, 16), (2, 16)]


def test_regions_reach_the_outputs_unless_segments_are_given():
    """A person in the segment of the ground, which the semantic map shows."""
    post = "MODEL.LDMSEG.POSTPROCESS"
    classes = dataset_classes(config())
    thing, stuff = classes.is_thing.index(True), classes.is_thing.index(False)
    probs = torch.zeros(classes.num_classes + 1, 8, 16)
    probs[stuff + 1] = 1
    probs[:, 2:6, 3:7] = 0
    probs[thing + 1, 2:6, 3:7] = 1
    panoptic = torch.full((8, 16), 2, dtype=torch.int32)
    decoded = {"panoptic_seg": (panoptic, [{"id": 2, "score": 1.0}]), "sem_seg": probs}

    def segments(*opts, **entry):
        classifier = build_classifier(config(*opts))
        output = classifier(decoded, entry, torch.zeros(1, 4, 4))
        return {s["category_id"]: s["area"] for s in output["panoptic_seg"][1]}

    assert segments() == {stuff: 128}
    assert segments(f"{post}.REGION_AREA", 16) == {stuff: 112, thing: 16}
    assert segments(f"{post}.REGION_AREA", 17) == {stuff: 128}
    assert segments(f"{post}.REGION_AREA", 16, given=panoptic.long()) == {stuff: 128}

    with pytest.raises(ValueError, match="REGION_AREA 16 needs classes of pixels"):
        build_classifier(
            config(f"{post}.REGION_AREA", 16, "MODEL.LDMSEG.CLASSIFIER", "mask_pooling")
        )
    with pytest.raises(ValueError, match=r"PART_SHARE in \[0, 1\], got 1 and 2.0"):
        build_classifier(config(f"{post}.PART_SHARE", 2.0))


def test_parts_reach_the_outputs():
    """Two people who touch, with an id each."""
    post = "MODEL.LDMSEG.POSTPROCESS"
    classes = dataset_classes(config())
    thing = classes.is_thing.index(True)
    probs = torch.zeros(classes.num_classes + 1, 8, 16)
    probs[thing + 1] = 1
    panoptic = torch.full((8, 16), 2, dtype=torch.int32)
    panoptic[:, 12:] = 5  # 32 px, a quarter
    info = [{"id": i, "score": 1.0} for i in (2, 5)]

    def areas(*opts):
        classifier = build_classifier(config(f"{post}.REGION_AREA", 1, *opts))
        decoded = {"panoptic_seg": (panoptic, info), "sem_seg": probs}
        output = classifier(decoded, {}, torch.zeros(1, 4, 4))
        return sorted(s["area"] for s in output["panoptic_seg"][1])

    assert areas() == areas(f"{post}.PART_AREA", 32) == [32, 96]
    assert areas(f"{post}.PART_AREA", 33) == areas(f"{post}.PART_SHARE", 0.26) == [128]


@pytest.mark.parametrize("keep_void, void_pixels", [(False, 0), (True, 16)])
def test_void_of_the_semantic_map_reaches_the_outputs(keep_void, void_pixels):
    post = "MODEL.LDMSEG.POSTPROCESS"
    classes = dataset_classes(config())
    probs = torch.zeros(classes.num_classes + 1, 8, 16)
    probs[1] = 0.4
    probs[0, :2, :8] = 0.6
    panoptic = torch.full((8, 16), 2, dtype=torch.int32)
    decoded = {"panoptic_seg": (panoptic, [{"id": 2, "score": 1.0}]), "sem_seg": probs}
    classifier = build_classifier(config(f"{post}.REGION_AREA", 1, f"{post}.KEEP_VOID", keep_void))
    result, segments = classifier(decoded, {}, torch.zeros(1, 4, 4))["panoptic_seg"]
    assert (result == 0).sum() == void_pixels
    assert [(s["id"], s["area"]) for s in segments] == [(2, 128 - void_pixels)]


@pytest.mark.parametrize(
    "name, kind",
    [("none", SegmentClassifier), ("semantic_task", SemanticVote), ("mask_pooling", MaskPooling)],
)
def test_classifiers_by_name(name, kind):
    assert type(build_classifier(config("MODEL.LDMSEG.CLASSIFIER", name))) is kind


@pytest.mark.parametrize(
    "name, tasks, message",
    [
        ("vote", ["instance"], "CLASSIFIER is 'vote'; allowed: none, semantic_task, mask_pooling"),
        ("semantic_task", ["instance"], r"needs \['instance', 'semantic'\] in MODEL.LDMSEG.TASKS"),
        ("mask_pooling", ["semantic"], r"needs \['instance'\] in MODEL.LDMSEG.TASKS"),
    ],
)
def test_wrong_classifiers_name_their_keys(name, tasks, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(
            config("MODEL.LDMSEG.CLASSIFIER", name, "MODEL.LDMSEG.TASKS", tasks, name=LDMSEG)
        )


def test_supervision_teaches_the_image_encoder_and_leaves_results_alone():
    torch.manual_seed(0)
    plain = build_model(config())
    torch.manual_seed(0)
    model = build_model(config(CELL_LOSS, 0.5))
    model.load_state_dict(plain.state_dict(), strict=False)
    batch = [dict(entry, sample_seed=1) for entry in tiny_multitask_batch()]
    expected, losses = plain.train()(batch), model.train()(batch)
    cells = losses.pop("loss_cells")
    assert losses == expected
    # Untrained: about what four equal classes have.
    assert 0.5 < float(cells) / (0.5 * torch.tensor(4.0).log()) < 2
    cells.backward()
    learns = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learns == {"image_encoder", "supervision"}
    # A picture without classes teaches nothing: the other's mean stays.
    features = torch.randn(2, 8, 16, 16)
    both = model.supervision.losses(features, [batch[0], {"image": batch[1]["image"]}], 64)
    torch.testing.assert_close(both, model.supervision.losses(features[:1], batch[:1], 64))
    with torch.no_grad():
        one, other = plain.eval()(batch)[0], model.eval()(batch)[0]
    torch.testing.assert_close(one["sem_seg"], other["sem_seg"])


def test_wrong_supervision_names_its_keys():
    assert build_supervision(config()) is None
    with pytest.raises(ValueError, match="CELL_LOSS_WEIGHT must be at least 0, got -1"):
        build_supervision(config(CELL_LOSS, -1.0))
    with pytest.raises(ValueError, match="needs 'semantic' in MODEL.LDMSEG.TASKS"):
        build_supervision(config(CELL_LOSS, 1.0, "MODEL.LDMSEG.TASKS", ["instance"]))


def test_classes_of_the_config_and_of_the_data_set(catalogs):
    classes = dataset_classes(config())
    assert classes.num_classes == 4 and classes.is_thing == (False, True, True, True)
    MetadataCatalog.get("own_train").set(
        stuff_classes=["sky", "car", "road"], thing_dataset_id_to_contiguous_id={17: 1}
    )
    cfg = config("DATASETS.TRAIN", ("own_train",), classes=())
    assert dataset_classes(cfg) == (3, (False, True, False))
    cfg = config("DATASETS.TRAIN", (), "DATASETS.TEST", ("own_train",), classes=())
    assert dataset_classes(cfg).num_classes == 3
    with pytest.raises(ValueError, match=r"NUM_CLASSES is 0 and no data set of.*'nothing_known'"):
        dataset_classes(
            config("DATASETS.TRAIN", ("nothing_known",), "DATASETS.TEST", (), classes=())
        )
    with pytest.raises(ValueError, match=r"THING_CLASSES holds 4; .* 0..3"):
        dataset_classes(config("MODEL.LDMSEG.THING_CLASSES", [1, 4]))
