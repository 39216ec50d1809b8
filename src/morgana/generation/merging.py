"""Merging tokens as mathematics: which go together, and what becomes of them; sorted places and mean states out."""

from __future__ import annotations

import torch
from torch import Tensor

from morgana.generation.pruner import Choice
from morgana.generation.selecting import cosine, farthest_first


def bipartite(states: Tensor, count: int, reluctance: Tensor | None = None) -> Choice:
    """Merge the most similar pairs between even and odd tokens, again and again, until `count` are left (ToMe).

    A merged token is the mean of all that went into it and stands at the place of the odd one. `reluctance` (N,) is
    taken off a pair's similarity for its even token: tokens of high value merge late.
    """
    place = torch.arange(len(states), device=states.device)
    size = torch.ones(len(states), 1, dtype=states.dtype, device=states.device)
    cost = torch.zeros(len(states), device=states.device) if reluctance is None else reluctance.detach()
    while (surplus := len(states) - count) > 0:
        even, odd = slice(0, None, 2), slice(1, None, 2)
        similarity = cosine(states[even].detach(), states[odd].detach())
        value, match = similarity.max(1)
        order = (value - cost[even]).argsort(descending=True, stable=True)
        goes, stays = order[:surplus], order[surplus:].sort().values
        into = match[goes]
        total = (states * size)[odd].index_add(0, into, (states * size)[even][goes])
        weight = size[odd].index_add(0, into, size[even][goes])
        joined = torch.cat([place[even][stays], place[odd]])
        back = joined.argsort()
        highest = cost[odd].scatter_reduce(0, into, cost[even][goes], "amax")
        states = torch.cat([states[even][stays], total / weight])[back]
        size = torch.cat([size[even][stays], weight])[back]
        cost = torch.cat([cost[even][stays], highest])[back]
        place = joined[back]
    return Choice(place, states)


def join(states: Tensor, index: Tensor, targets: Tensor, keys: Tensor | None = None) -> Choice:
    """The tokens `index` stay; each other one is averaged into its most similar token of `targets`, a subset of it.

    Similarity is that of `keys` (N, d), or of the states themselves.
    """
    keys = states if keys is None else keys
    rest = torch.ones(len(states), dtype=torch.bool, device=states.device)
    rest[index] = False
    into = targets[cosine(keys[rest].detach(), keys[targets].detach()).argmax(1)]
    total = states.index_add(0, into, states[rest])
    count = torch.ones(len(states), 1, dtype=states.dtype, device=states.device)
    count = count.index_add(0, into, count[rest])
    return Choice(index, (total / count)[index])


def clusters(states: Tensor, count: int, steps: int = 10) -> Tensor:
    """(N,) the cluster of each token: k-means by cosine from farthest-first centres, deterministic."""
    unit = torch.nn.functional.normalize(states.detach().float(), dim=-1)
    similarity = unit @ unit.T
    centre = unit[farthest_first(similarity, count, int(similarity.sum(1).argmax()))]
    for _ in range(steps):
        found = (unit @ centre.T).argmax(1)
        total = torch.zeros_like(centre).index_add(0, found, unit)
        empty = total.abs().sum(1, keepdim=True) == 0
        centre = torch.where(empty, centre, torch.nn.functional.normalize(total, dim=-1))
    return (unit @ centre.T).argmax(1)


def means(states: Tensor, cluster: Tensor, weight: Tensor) -> Choice:
    """One token a cluster: the weighted mean of its members, at the place of the heaviest; empty clusters vanish."""
    names, cluster = torch.unique(cluster, return_inverse=True)
    weight = weight.to(states.dtype).clamp(min=1e-12)[:, None]
    total = states.new_zeros(len(names), states.shape[1]).index_add(0, cluster, states * weight)
    mass = weight.new_zeros(len(names), 1).index_add(0, cluster, weight)
    heads = []
    for name in range(len(names)):
        members = (cluster == name).nonzero().flatten()
        heads.append(int(members[weight[members, 0].detach().argmax()]))
    place = torch.tensor(heads, device=states.device)
    order = place.argsort()
    return Choice(place[order], (total / mass)[order])


def both(first: Choice, second: Choice, states: Tensor) -> Choice:
    """Two choices without a common place as one."""
    index = torch.cat([first.index, second.index])
    made = torch.cat([states[c.index] if c.states is None else c.states for c in (first, second)])
    order = index.argsort()
    return Choice(index[order], made[order])


def peaks(states: Tensor, count: int, neighbours: int = 5) -> Tensor:
    """(N,) clusters around density peaks (DPC-KNN): centres are dense and far from anything denser."""
    x = states.detach().float()
    distance = torch.cdist(x, x) / x.shape[1] ** 0.5
    nearest = distance.topk(min(neighbours, len(x)), largest=False).values
    density = (-nearest.square().mean(1)).exp()
    density = density - torch.arange(len(x), device=x.device) * 1e-7  # ties to the earlier
    denser = density[None] > density[:, None]
    gap = torch.where(denser, distance, distance.max()).amin(1)
    centre = (gap * density).argsort(descending=True, stable=True)[:count].sort().values
    found: Tensor = distance[:, centre].argmin(1)
    found[centre] = torch.arange(len(centre), device=x.device)
    return found
