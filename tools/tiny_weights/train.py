"""Train the tests' weights on phantoms, or write random ones.

.venv/bin/python tools/tiny_weights/train.py                              both networks of `total`, into tests/weights
.venv/bin/python tools/tiny_weights/train.py --random body --out DIR      random numbers, for any task, in a moment
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_weights.anatomy import BONES, STRUCTURES, TAUGHT, taught_as
from tiny_weights.judge import report
from tiny_weights.layout import Shape, network, normalised, with_all_classes, write_random_weights, write_weights
from tiny_weights.phantom import make_torso
from voxelmill_segment.totalsegmentator import library
from voxelmill_shared.plan import Resolution

if TYPE_CHECKING:
    import numpy.typing as npt
    from dynamic_network_architectures.architectures.unet import PlainConvUNet  # type: ignore[import-untyped]  # no types

FIRST_SEED = 1000
"""Of the phantoms that are trained on. Those below are for tests: the networks have never seen them."""
HELD_OUT = range(3)

_PAIR = tuple["npt.NDArray[np.float32]", "npt.NDArray[np.uint8]"]


@dataclass(frozen=True, slots=True)
class Course:
    """How one network is trained.

    Parameters
    ----------
    shape
        The network.
    steps
        How often its parameters are changed, each time after one patch.
    phantoms
        How many phantoms the patches are cut from.
    rate
        How far a step goes in the beginning (AdamW's learning rate).
    """

    shape: Shape
    steps: int
    phantoms: int
    rate: float = 6e-3


COURSES = {
    Resolution.FASTEST: Course(Shape((6.0, 6.0, 6.0), (64, 48, 64), (12, 16, 32, 64)), steps=1800, phantoms=48),
    Resolution.FAST: Course(Shape((3.0, 3.0, 3.0), (96, 80, 112), (12, 12, 16, 32, 64)), steps=260, phantoms=16),
}


def example(seed: int, spacing_mm: float) -> _PAIR:
    """Return a phantom as a network sees it: (slices, rows, columns) towards head, front and right, normalised.

    Its labels are 0, or n for `anatomy.TAUGHT[n - 1]`.

    Its grid is coarser than that of the phantom where the network's is, and reached as TotalSegmentator reaches it: by
    linear interpolation without a filter.
    """
    random = np.random.default_rng([seed, 6])
    # Half of the phantoms are drawn as coarse as the network's grid is, their edges as soft: thick slices have such.
    drawn_mm = spacing_mm if seed % 2 else 3.0
    torso = make_torso(seed, (drawn_mm,) * 3, (random.uniform(-430, -330), random.uniform(100, 260)))
    table = np.array([0, *(TAUGHT.index(taught_as(name)) + 1 for name in STRUCTURES)], np.uint8)
    voxels, labels = torso.voxels[:, ::-1, ::-1], table[torso.labels][:, ::-1, ::-1]
    if spacing_mm != drawn_mm:
        zoom = drawn_mm / spacing_mm
        voxels = ndimage.zoom(voxels.astype(np.float32), zoom, order=1, mode="nearest")
        labels = ndimage.zoom(labels, zoom, order=0, mode="nearest")
    return normalised(voxels), np.ascontiguousarray(labels)


def cut(pair: _PAIR, patch: tuple[int, int, int], random: np.random.Generator, structure: int | None = None) -> _PAIR:
    """Cut a patch out of a phantom, at random or about a voxel of a structure, sometimes over its edge.

    What lies outside is 0 after normalisation and background, as nnU-Net's own padding has it.
    """
    image, labels = pair
    if structure is None and random.random() < 0.5:
        # A short field: tests and users crop, and then the network sees the padding beside the body.
        slices = int(random.uniform(0.5, 1.0) * min(patch[0], len(image)))
        first = int(random.integers(0, len(image) - slices + 1))
        image, labels = image[first : first + slices], labels[first : first + slices]
    pads = [
        (max(0, wanted - there) // 2, max(0, wanted - there + 1) // 2)
        for wanted, there in zip(patch, image.shape, strict=True)
    ]
    image, labels = np.pad(image, pads), np.pad(labels, pads)
    corner = [int(random.integers(0, there - wanted + 1)) for wanted, there in zip(patch, image.shape, strict=True)]
    if structure is not None:
        chosen = np.flatnonzero(labels == structure)
        about = np.unravel_index(int(random.choice(chosen)), labels.shape)
        corner = [
            int(np.clip(at - random.integers(wanted // 4, 3 * wanted // 4 + 1), 0, there - wanted))
            for at, wanted, there in zip(about, patch, labels.shape, strict=True)
        ]
    window = tuple(slice(at, at + wanted) for at, wanted in zip(corner, patch, strict=True))
    return image[window], labels[window]


def blurred(image: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a patch as another scanner might show it: other contrast, noise and kernel."""
    if random.random() < 0.25:
        image = ndimage.gaussian_filter(image, random.uniform(0.3, 0.7))
    noise = random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(0, 0.08))
    changed: npt.NDArray[np.float32] = (
        image * np.float32(random.uniform(0.9, 1.1)) + np.float32(random.uniform(-0.06, 0.06)) + noise
    )
    return changed


def _groups() -> list[list[int]]:
    """Return the classes of each group: all bones are one, all lobes are one, everything else is its own."""
    bones = [index for index, name in enumerate(TAUGHT, start=1) if name in BONES]
    lobes = [index for index, name in enumerate(TAUGHT, start=1) if name.startswith("lung_")]
    return [bones, lobes, *([index] for index in range(len(TAUGHT) + 1) if index not in {*bones, *lobes})]


def loss(logits: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor, groups: list[list[int]]) -> torch.Tensor:
    """Return how wrong an answer is: cross entropy and Dice, of the classes and of groups of them.

    A group is as likely as its likeliest class. Without the groups a voxel that is one of several bones, nobody knows
    which, would be lost to the background, which has nothing to be undecided about.

    Parameters
    ----------
    logits
        (voxels, classes).
    truth
        (voxels,), int64.
    weight
        (voxels,): for how many voxels each one stands.
    groups
        The classes of each group, as `_groups` gives them.
    """
    group = torch.empty(logits.shape[1], dtype=torch.int64)
    for number, members in enumerate(groups):
        group[members] = number
    grouped = torch.stack([logits[:, members].amax(1) for members in groups], 1)
    return _wrong(torch.softmax(logits, 1), truth, weight) + _wrong(torch.softmax(grouped, 1), group[truth], weight)


def _wrong(share: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return cross entropy + 1 - mean Dice of the classes that are there, from (voxels, classes) shares."""
    own = share.gather(1, truth[:, None])[:, 0]
    classes = share.shape[1]
    counts = torch.zeros(classes).index_add(0, truth, weight)
    shared = torch.zeros(classes).index_add(0, truth, own * weight)
    dice = (2 * shared + 1) / (weight @ share + counts + 1)
    return 1.0 - dice[counts > 0].mean() - (own.clamp_min(1e-7).log() * weight).sum() / weight.sum()


def sample(labels: npt.NDArray[np.uint8], random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the voxels of a patch that are looked at, which costs a fraction of all; return them and their weights.

    Structures are looked at more closely than the background, and count no more for it.
    """
    likely = np.where(labels.ravel() > 0, 0.3, 0.12)
    chosen = np.flatnonzero(random.random(labels.size) < likely)
    return torch.from_numpy(chosen), torch.from_numpy((1.0 / likely[chosen]).astype(np.float32))


def train(course: Course, coarser: PlainConvUNet | None = None) -> PlainConvUNet:
    """Train one network; it comes out the same each time on the same machine with the same number of threads.

    Parameters
    ----------
    course
        How.
    coarser
        A trained network of twice the spacing, to begin from.

    Returns
    -------
    PlainConvUNet
        Its classes are the background and `anatomy.TAUGHT`.
    """
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    pairs = [example(FIRST_SEED + index, course.shape.spacing_mm[0]) for index in range(course.phantoms)]
    holders = [[pair for pair in pairs if np.any(pair[1] == number)] for number in range(len(TAUGHT) + 1)]
    said(f"{len(pairs)} phantoms, the first of {pairs[0][0].shape}")
    net = network(course.shape, len(TAUGHT) + 1)
    known = begin_from(net, coarser) if coarser is not None else set()
    net = net.to(memory_format=torch.channels_last_3d).train()
    groups = _groups()
    # What is known already changes slowly, or the first steps of the rest would spoil it.
    parts = {
        rate: [one for name, one in net.named_parameters() if (name in known) == (rate < 1)] for rate in (1.0, 0.2)
    }
    optimizer = torch.optim.AdamW([{"params": some, "share": rate} for rate, some in parts.items()], weight_decay=1e-4)
    losses: list[float] = []
    each = max(1, course.steps // 20)
    for step in range(course.steps):
        for part in optimizer.param_groups:
            part["lr"] = part["share"] * course.rate * min(1.0, (step + 1) / 40) * (1 - step / course.steps) ** 0.9
        logits, truth, weight = look(net, holders, course, random)
        wrong = loss(logits, truth, weight, groups)
        optimizer.zero_grad()
        torch.autograd.backward(wrong)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 12.0)
        optimizer.step()
        losses.append(wrong.item())
        if (step + 1) % each == 0:
            said(f"step {step + 1} of {course.steps}, loss {np.mean(losses[-each:]):.3f}")
    with torch.no_grad():
        balance(net, [look(net, holders, course, random) for _ in range(course.phantoms)], groups[0])
    return net.to(memory_format=torch.contiguous_format)


def look(
    net: PlainConvUNet, holders: list[list[_PAIR]], course: Course, random: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Show a network one patch; return what it says of some of its voxels, the truth, and the voxels' weights.

    Most patches are cut about a structure, each as often as any other; `holders` are the phantoms that have it.
    """
    structure = int(random.integers(1, len(holders))) if random.random() < 0.7 else None
    having = holders[structure or 0] or holders[0]
    pair = having[int(random.integers(len(having)))]
    image, labels = cut(pair, course.shape.patch, random, structure if holders[structure or 0] else None)
    given = torch.from_numpy(blurred(image, random))[None, None].to(memory_format=torch.channels_last_3d)
    # The head is run on the voxels that are looked at alone: with so many classes it costs more than all before it.
    head = net.decoder.seg_layers[-1]
    net.decoder.seg_layers[-1] = torch.nn.Identity()
    with torch.autocast("cpu", torch.bfloat16):
        features = net(given)[0].movedim(0, -1).reshape(labels.size, -1)
    net.decoder.seg_layers[-1] = head
    chosen, weight = sample(labels, random)
    logits = functional.linear(features[chosen].float(), head.weight.flatten(1), head.bias)
    return logits, torch.from_numpy(labels.ravel()[chosen].astype(np.int64)), weight


def begin_from(net: PlainConvUNet, coarser: PlainConvUNet) -> set[str]:
    """Let a network begin as one that was trained at twice its spacing, which becomes its coarser stages.

    What is left to learn is its finest stage, which begins as little more than a way through: the first convolution
    hands on the image and its negative (together they pass the rectifier), the last takes what comes from below.

    Returns
    -------
    set of str
        The names of the parameters that are known already.
    """
    known = {f"encoder.stages.{index + 1}": stage for index, stage in enumerate(coarser.encoder.stages)}
    for name in ("transpconvs", "stages"):
        known |= {f"decoder.{name}.{index}": part for index, part in enumerate(getattr(coarser.decoder, name))}
    names = set()
    for name, part in known.items():
        own = net.get_submodule(name).state_dict()
        fitting = {key: value for key, value in part.state_dict().items() if own[key].shape == value.shape}
        net.get_submodule(name).load_state_dict(own | fitting)
        names |= {f"{name}.{key}" for key in fitting}
    through = net.encoder.stages[0][0].convs[0].conv
    entry, old_entry = (one.convs[0].conv for one in (net.encoder.stages[1][0], coarser.encoder.stages[0][0]))
    up, last = net.decoder.transpconvs[-1], net.decoder.stages[-1].convs[0].conv
    head, old_head = net.decoder.seg_layers[-1], coarser.decoder.seg_layers[-1]
    with torch.no_grad():
        through.weight[:2] = 0
        through.weight[:2, 0, 1, 1, 1] = torch.tensor([1.0, -1.0])
        entry.weight.zero_()
        entry.weight[:, :2] = torch.cat([old_entry.weight, -old_entry.weight], 1)
        entry.bias.copy_(old_entry.bias)
        for channel in range(min(len(last.weight), up.weight.shape[0])):
            up.weight[channel] *= 0.1
            up.weight[channel, channel] = 1.0
            last.weight[channel] *= 0.3
            last.weight[channel, channel, 1, 1, 1] = 1.0
        if head.weight.shape == old_head.weight.shape:
            head.load_state_dict(old_head.state_dict())
    return names


def balance(net: PlainConvUNet, looks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], bones: list[int]) -> None:
    """Shift the bones' outputs against all others by what gives bone, taken as one, its best Dice.

    Dice and cross entropy of many thin classes draw their common border outwards.
    """
    logits, truth, weight = (torch.cat(parts) for parts in zip(*looks, strict=True))
    bone = torch.zeros(logits.shape[1], dtype=torch.bool)
    bone[bones] = True
    margin, there = logits[:, bone].amax(1) - logits[:, ~bone].amax(1), bone[truth]
    scores = {}
    for shift in torch.arange(-5.0, 5.0, 0.1).tolist():
        found = margin + shift > 0
        both = ((found & there) * weight).sum()
        scores[shift] = float(2 * both / ((found * weight).sum() + (there * weight).sum()))
    best = max(scores, key=lambda shift: scores[shift])
    said(f"the bones' outputs are moved by {best:.1f}, their Dice is {scores[best]:.3f}")
    net.decoder.seg_layers[-1].bias[bone] += best


def said(line: str) -> None:
    """Print a line with the CPU time so far."""
    print(f"{time.process_time():7.0f} s CPU  {line}", flush=True)


def write_trained(root: Path, resolution: Resolution, net: PlainConvUNet) -> Path:
    """Write a trained network as that of `total` at a resolution; return its folder."""
    (model,) = library.networks("total", resolution)
    names = library.classes("total")
    number = {name: label for label, name in names.items()}
    wide = [0, *(number[name] for name in TAUGHT)]
    state = with_all_classes(net.state_dict(), wide, len(names) + 1)
    return write_weights(root, model, COURSES[resolution].shape, state, names=names)


def read_trained(root: Path, resolution: Resolution) -> PlainConvUNet:
    """Read a network again that `write_trained` has written, with the classes that it was taught."""
    (model,) = library.networks("total", resolution)
    number = {name: label for label, name in library.classes("total").items()}
    wide = [0, *(number[name] for name in TAUGHT)]
    stored = torch.load(root / model.path / "fold_0" / "checkpoint_final.pth", weights_only=True)["network_weights"]
    net = network(COURSES[resolution].shape, len(wide))
    net.load_state_dict({name: value[wide] if "seg_layers" in name else value for name, value in stored.items()})
    return net


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parents[2] / "tests" / "weights", help="where to write"
    )
    parser.add_argument("--keep-coarse", action="store_true", help="take the 6 mm network that is there")
    parser.add_argument("--random", metavar="TASK", help="write random weights for each network of a task instead")
    parser.add_argument("--resolution", choices=[str(one) for one in Resolution], default="normal", help="of --random")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more than one help little")
    options = parser.parse_args(arguments)
    if options.random:
        channel = library.modality(options.random)
        for model in library.networks(options.random, Resolution(options.resolution)):
            said(f"wrote {write_random_weights(options.out, model, channel=channel)}")
        return 0
    net = None
    for resolution, course in COURSES.items():
        torch.set_num_threads(options.threads)  # the report below uses as many as there are cores
        if options.keep_coarse and net is None:
            net = read_trained(options.out, resolution)
            continue
        net = train(course, net)
        said(f"wrote {write_trained(options.out, resolution, net)}")
        print("\n".join(report(options.out, resolution, HELD_OUT)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
