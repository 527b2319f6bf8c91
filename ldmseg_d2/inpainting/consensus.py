"""Several masks of one photo: what they agree on, and where they do not.

A diffusion model draws a mask from the distribution of masks; K draws tell how sure it is. Their
latents cannot be averaged (ids are names), but their segments can be matched and their pixels can
vote.
"""

from collections import Counter
from collections.abc import Collection, Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..panoptic.decoding import SegmentsInfo


def consensus(
    samples: Sequence[tuple[Tensor, SegmentsInfo]],
    *,
    min_area: int = 1,
    min_iou: float = 0.25,
    fixed_ids: Collection[int] = (),
) -> tuple[Tensor, SegmentsInfo, Tensor]:
    """Align the segments of K masks and let every pixel vote.

    1. The reference is the medoid: the mask with the highest mean panoptic quality against the
       others, then mean IoU.
    2. In the order of their quality against it, the others' segments are matched to the labels
       found so far (Hungarian algorithm on IoU, at least ``min_iou``); the rest found new labels.
    3. A pixel takes the label, or void, with the most votes; in a tie the label with more votes in
       the whole picture.
    4. Labels that win fewer than ``min_area`` pixels withdraw, unless they are fixed, and their
       pixels vote again.

    What the ids are called plays no part; nor does the order of the samples, but for ties.

    Args:
        samples: (H, W) integer map, 0 is void, and segments_info with ``id`` and optionally
            ``category_id``, ``isthing`` and ``score`` of each mask.
        min_area: pixels.
        min_iou: in (0, 1].
        fixed_ids: ids that mean the same in every mask, such as given ones in inpainting: they are
            matched by name and keep it.

    Returns:
        The consensus (H, W) int32, whose ids are those of the fixed labels and the smallest others;
        its segments_info, where the class is voted by the samples and the score is the mean score
        of a label's segments times the share of samples that have it; and the disagreement (H, W)
        float32 in [0, 1]: 1 minus the share of samples with the winning label.

    Raises:
        ValueError: no sample, or maps of different sizes.
    """
    if not samples or len({tuple(ids.shape) for ids, _ in samples}) != 1:
        raise ValueError(
            "consensus needs at least one map, all of one size, got "
            f"{[tuple(ids.shape) for ids, _ in samples]}"
        )
    maps = [_index(ids) for ids, _ in samples]
    order = _from_medoid(maps)
    tables = _match(maps, order, min_iou=min_iou, fixed=set(fixed_ids))

    num_labels = max(int(table.max()) for table in tables) + 1
    # [K, H W]: the common label of every pixel in every sample.
    votes = torch.stack([table[index].view(-1) for (_, index), table in zip(maps, tables)])
    names = _names(maps, tables, num_labels, set(fixed_ids))
    lasting = torch.tensor([name in set(fixed_ids) for name in names.tolist()])
    winner = _winners(votes, min_area, lasting)
    share = (votes == winner).float().mean(dim=0)
    segments = _segments(samples, maps, tables, winner, names)
    shape, device = samples[0][0].shape, samples[0][0].device
    result = names[winner].view(shape).to(torch.int32)
    return result.to(device), segments, (1 - share).view(shape).to(device)


def _index(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Ids (S,) of a map with void first, present or not, and every pixel's (H, W) index in them."""
    ids = ids.cpu().long()
    found = torch.unique(ids)
    labels = torch.cat([found.new_zeros(1), found[found != 0]])
    return labels, torch.searchsorted(labels, ids)


def _overlap_iou(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]
) -> Tensor:  # (segments of a, segments of b), void left out
    rows, columns = len(a[0]), len(b[0])
    pairs = a[1].reshape(-1) * columns + b[1].reshape(-1)
    overlap = torch.bincount(pairs, minlength=rows * columns).view(rows, columns).double()
    union = overlap.sum(1, keepdim=True) + overlap.sum(0, keepdim=True) - overlap
    return (overlap / union.clamp(min=1))[1:, 1:]


def _quality(iou: Tensor) -> tuple[float, float]:
    """Panoptic quality of one map against another, and the mean IoU of the best one-to-one match.

    Both are symmetric. Two maps without segments agree.
    """
    rows, columns = iou.shape
    if rows + columns == 0:
        return 1.0, 1.0
    matched = iou[iou > 0.5]
    pq = float(matched.sum()) / (len(matched) + 0.5 * (rows + columns - 2 * len(matched)))
    best = linear_sum_assignment(iou.numpy(), maximize=True)
    return pq, float(iou[best].sum()) / max(rows, columns)


def _from_medoid(maps: list[tuple[Tensor, Tensor]]) -> list[int]:
    """Indices of the maps: the medoid, then the others by their quality against it."""
    count = len(maps)
    quality = {}
    for i in range(count):
        for j in range(i + 1, count):
            quality[i, j] = quality[j, i] = _quality(_overlap_iou(maps[i], maps[j]))

    def mean(i: int) -> tuple[float, float]:
        rest = [quality[i, j] for j in range(count) if j != i]
        # Rounded: sums in another order must not decide.
        return tuple(round(sum(values), 9) for values in zip(*rest))

    medoid = max(range(count), key=mean)
    others = [i for i in range(count) if i != medoid]
    return [medoid, *sorted(others, key=lambda i: quality[medoid, i], reverse=True)]


def _match(
    maps: list[tuple[Tensor, Tensor]], order: list[int], *, min_iou: float, fixed: set[int]
) -> list[Tensor]:
    """For each map, the common label (from 1 on) of each of its segments; void has 0."""
    # The segment that founded a label stands for it: (map, row of it there, id).
    founders: list[tuple[int, int, int]] = []
    tables: list[Tensor] = [torch.zeros(0)] * len(maps)
    for i in order:
        labels = maps[i][0]
        iou = {j: _overlap_iou(maps[i], maps[j]) for j in {j for j, _, _ in founders}}
        score = torch.zeros(len(labels) - 1, len(founders), dtype=torch.float64)
        for column, (j, row, other) in enumerate(founders):
            score[:, column] = (labels[1:] == other) if other in fixed else iou[j][:, row]
        for row, own in enumerate(labels[1:].tolist()):
            if own in fixed:
                score[row] = torch.tensor([float(own == other) for _, _, other in founders])
        table = torch.zeros(len(labels), dtype=torch.int64)
        for row, column in zip(*linear_sum_assignment(score.numpy(), maximize=True)):
            if score[row, column] >= min_iou:
                table[row + 1] = int(column) + 1
        for row in torch.nonzero(table[1:] == 0)[:, 0].tolist():
            founders.append((i, row, int(labels[row + 1])))
            table[row + 1] = len(founders)
        tables[i] = table
    return tables


def _winners(votes: Tensor, min_area: int, lasting: Tensor) -> Tensor:
    """Label (N,) of every pixel from votes (K, N) for L labels.

    Small labels withdraw, but for void and those that are ``lasting`` (L,).
    """
    num_labels = len(lasting)
    totals = torch.bincount(votes.view(-1), minlength=num_labels).double()
    totals[0] = -1  # void loses ties
    # Between 0 and 1, so that it decides ties alone.
    tie = (totals + 2) / (totals.max().clamp(min=1) + 4)
    counts = torch.stack([(votes == one).sum(dim=0) for one in votes])  # [K, N]
    score = counts + tie[votes]
    winner = votes.gather(0, score.argmax(dim=0, keepdim=True))[0]
    small = torch.bincount(winner, minlength=num_labels) < min_area
    small &= ~lasting
    small[0] = False
    if bool(small.any()):
        most, best = score.masked_fill(small[votes], 0.0).max(dim=0, keepdim=True)
        winner = torch.where(most > 0, votes.gather(0, best), 0)[0]  # void: nobody is left
    return winner


def _names(
    maps: list[tuple[Tensor, Tensor]], tables: list[Tensor], num_labels: int, fixed: set[int]
) -> Tensor:
    """Id (L,) of each label in the result."""
    names = torch.zeros(num_labels, dtype=torch.int64)
    for (labels, _), table in zip(maps, tables):
        for own, label in zip(labels.tolist(), table.tolist()):
            if own in fixed:
                names[label] = own
    free = (i for i in range(1, num_labels + len(fixed) + 1) if i not in fixed)
    for label in range(1, num_labels):
        if names[label] == 0:
            names[label] = next(free)
    return names


def _segments(
    samples: Sequence[tuple[Tensor, SegmentsInfo]],
    maps: list[tuple[Tensor, Tensor]],
    tables: list[Tensor],
    winner: Tensor,
    names: Tensor,
) -> SegmentsInfo:
    areas = torch.bincount(winner, minlength=len(names)).tolist()
    members: dict[int, SegmentsInfo] = {}
    for (_, infos), (labels, _), table in zip(samples, maps, tables):
        label_of = dict(zip(labels.tolist(), table.tolist()))
        for info in infos:
            if int(info["id"]) in label_of:
                members.setdefault(label_of[int(info["id"])], []).append(info)
    segments = []
    for label in range(1, len(names)):
        if areas[label] == 0:
            continue
        infos = members.get(label, [])
        category, is_thing = _vote_class(infos)
        score = sum(float(info.get("score", 1.0)) for info in infos) / len(samples)
        head = {"id": int(names[label]), "category_id": category, "isthing": is_thing}
        segments.append({**head, "score": min(score, 1.0), "area": areas[label]})
    return sorted(segments, key=lambda segment: segment["id"])


def _vote_class(infos: SegmentsInfo) -> tuple[int, bool]:
    """The class of most segments; in a tie that with the larger sum of scores, then the lower."""
    counts: Counter = Counter()
    scores: Counter = Counter()
    is_thing = {}
    for info in infos:
        category = int(info.get("category_id", 0))
        counts[category] += 1
        scores[category] += float(info.get("score", 1.0))
        is_thing[category] = bool(info.get("isthing", True))
    if not counts:
        return 0, True
    best = min(counts, key=lambda c: (-counts[c], -round(scores[c], 9), c))
    return best, is_thing[best]
