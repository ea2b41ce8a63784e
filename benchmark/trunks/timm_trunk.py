"""Any network of the package timm, with the weights and the pre-processing that timm publishes for it.

Source: Wightman. PyTorch Image Models, github.com/huggingface/pytorch-image-models, version 1.0. A name such as
`vit_small_patch14_dinov2.lvd142m` is an architecture and, after the dot, the tag of its weights. The feature is what
the network passes to its classifier, after its own pooling or another one that timm has for it (`global_pool`): timm
averages the patch tokens of DINOv3, whose authors evaluate the class token.

Departures: weights are always loaded strictly, while timm leaves layers random that a file lacks if it drops the
classifier; images are cropped at the centre also where timm squashes them to a square or adds a border. Position
embeddings are resampled as timm does it (bicubic, antialiased), whatever the authors' code does. The file of a hub is
read as any other one: it may hold tensors only, and all of them must be finite.

Easily got wrong: without a tag, timm takes the weights that its version prefers; therefore a tag is required. A network
that takes one image size is built for the size of the crops, and its position embeddings are resampled once, when the
weights are loaded. CLIP's own weights need the activation of the architectures named `quickgelu`.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, channels_last

from benchmark.core.errors import UserError
from benchmark.core.invocation import arguments
from benchmark.trunks import weights as files
from benchmark.trunks.published import PublishedTrunk, import_timm
from benchmark.trunks.unverified import facts_of

if TYPE_CHECKING:
    from benchmark.trunks.published import TimmNetwork

MOST_BYTES = 1 << 35
RESAMPLINGS = {"bilinear": "pil", "bicubic": "pil_bicubic"}  # timm's names, and those of `images.crops.Crops`
CLOSE = 5  # names that a message suggests
LIST = "List some: .venv/bin/python -c \"import timm; print(timm.list_models('*dinov2*', pretrained=True))\""


class TimmTrunk(PublishedTrunk):
    """Maps normalised RGB or grey images (B, in_channels, H, W) to the features (B, F) before timm's classifier.

    Args:
        network: name of the network in timm, with the tag of its weights, such as `convnext_tiny.fb_in22k`.
        in_channels: 3 for RGB, 1 for grey.
        weights: `pretrained`, downloaded from the address that timm knows; the path of a file of this network, in
            timm's layout or its authors'; or None for random weights.
        side: image side in pixels that a network is built for if it takes one size only; None for timm's own.
        projection: whether the last layer is kept, as the projection of CLIP into the space of its texts.
        global_pool: how tokens or maps become one feature, by timm's name: `token` (the class token), `avg`, ...; None
            for timm's default of the network, which may differ from what its authors evaluate.

    Raises:
        UserError: a setting is invalid, timm is not installed or has no such network, or the weights cannot be found,
            downloaded or written, or do not fit.
    """

    def __init__(
        self,
        *,
        network: str,
        in_channels: int = 3,
        weights: str | None = None,
        side: int | None = None,
        projection: bool = False,
        global_pool: str | None = None,
    ) -> None:
        published = pretrained_config(network)
        own = published.input_size[1]
        resized = published.fixed_input_size and side not in (None, own)
        options: dict[str, object] = {"img_size": side} if resized else {}
        options |= {"global_pool": global_pool} if global_pool is not None else {}
        state, path = None, Path()
        if weights is not None:
            path = files.find(weights, {"pretrained": _address(network, published)})
            state = files.read(path)
        built = _built(network, published, options, state, path, projection)
        super().__init__(
            out_features=_num_features(built, projection), mean=published.mean, std=published.std,
            in_channels=in_channels,
        )  # fmt: skip
        self.name, self.network = network, built
        self.side = (side or own) if published.fixed_input_size else None
        self.to(memory_format=channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, in_channels, H, W) to features (B, F).

        Raises:
            UserError: the images have a size that the network does not take, or it has no single feature per image.
        """
        height, width = images.shape[2:]
        if self.side is not None and (height, width) != (self.side, self.side):
            raise UserError(
                f"{self.name} got images of {height} x {width} pixels, and was built for {self.side} x {self.side}. "
                f"For image files, set trunk.images.crop={self.side}; other images need a trunk that takes any size: "
                f"{arguments({'trunk': 'small_conv'})}"
            )
        found: Tensor = self.network(self.prepared(images))
        if found.shape != (len(images), self.out_features):
            raise UserError(
                f"{self.name} returns {tuple(found.shape)} for {len(images)} images, not {self.out_features} features "
                "each: it is no network for whole images. Choose another one, such as convnext_tiny.fb_in22k."
            )
        return found


def facts(options: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the features of a trunk beyond its options.

    Args:
        options: those of `TimmTrunk`.

    Raises:
        UserError: timm is not installed, or has no such network, or the weights cannot be found or downloaded.
    """
    network, weights = options["network"], options.get("weights")
    known = {"pretrained": _address(network, pretrained_config(network))} if weights == "pretrained" else {}
    return facts_of(network, weights, known)


def image_options(network: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how timm resizes and crops the images of a network, as options of `images.crops.Crops`.

    The short side is that of the crop over timm's `crop_pct`, rounded down as by timm.

    Args:
        network: name of the network in timm, with the tag of its weights.
        given: values that take precedence, such as another `crop`; None for timm's.

    Raises:
        UserError: timm is not installed, or has no such network; or the network's images are not square, or resized by
            a filter that is unknown here.
    """
    published = pretrained_config(network)
    _, height, width = published.input_size
    if height != width or published.interpolation not in RESAMPLINGS:
        raise UserError(
            f"{network} takes images of {height} x {width} pixels, resized by the filter {published.interpolation}; "
            f"allowed are squares and {', '.join(RESAMPLINGS)}. Choose another network."
        )
    asked = {name: value for name, value in given.items() if value is not None}
    crop = asked.get("crop", height)
    short_side = math.floor(crop / published.crop_pct) if isinstance(crop, int) else crop
    own = {"short_side": short_side, "crop": crop, "resampling": RESAMPLINGS[published.interpolation]}
    return own | asked


def pretrained_config(network: str) -> Any:
    """Return timm's description of a network's weights and pre-processing, a `timm.models.PretrainedCfg`.

    Args:
        network: name of the network in timm, with the tag of its weights.

    Raises:
        UserError: timm is not installed, or has no such network, or no such weights of it; or the tag is missing.
    """
    timm = import_timm(network)
    architecture, _, tag = network.partition(".")
    if not network:
        raise UserError(
            f"The trunk timm needs the name of a network, such as trunk.network=convnext_tiny.fb_in22k. {LIST}"
        )
    if not timm.is_model(architecture):
        known = timm.list_models(pretrained=True)
        part = [name for name in known if architecture.lower() in name]
        near = difflib.get_close_matches(network, [*known, *timm.list_models()], CLOSE, 0.5)
        similar = ", ".join((part or near)[:CLOSE])
        raise UserError(
            f"timm {timm.__version__} has no network {network!r}. {f'Similar ones: {similar}. ' if similar else ''}"
            f"{LIST}"
        )
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if network in tags or (not tag and not tags):
        return timm.models.get_pretrained_cfg(network)
    if not tags:
        raise UserError(
            f"timm {timm.__version__} has no weights of {architecture}. Name it without tag: {architecture}"
        )
    preferred = f"{architecture}.{timm.models.get_pretrained_cfg(architecture).tag}"
    near = difflib.get_close_matches(network, tags, CLOSE, 0.0) if tag else [*dict.fromkeys((preferred, *tags))]
    more = ", ".join(near[1:CLOSE])
    fault = f"timm {timm.__version__} has no such weights" if tag else "the tag of its weights is missing"
    raise UserError(f"trunk.network={network}: {fault}. Name one: {near[0]}{f'; others: {more}' if more else ''}.")


def _address(network: str, published: Any) -> files.Published:
    """Where timm's weights of a network are; a file of a hub is kept under the network's name.

    Raises:
        UserError: timm knows no address.
    """
    if published.hf_hub_id:
        from huggingface_hub import hf_hub_url  # which timm depends on

        file = published.hf_hub_filename or "model.safetensors"
        address = hf_hub_url(published.hf_hub_id, file)
        return files.Published(address, name=f"{network}{Path(file).suffix}", at_most=MOST_BYTES)
    if not published.url:
        raise UserError(
            f"timm has no weights of {network}. Give a file, trunk.module.weights=PATH, or take random ones: "
            "trunk.module.weights=null"
        )
    return files.Published(published.url, at_most=MOST_BYTES)


def _built(
    network: str, published: Any, options: dict[str, object], state: dict[str, Tensor] | None, path: Path,
    projection: bool,
) -> "TimmNetwork":  # fmt: skip
    """Build a network without its classifier, random or with the tensors of a file.

    Raises:
        UserError: the network does not take the options, or the tensors do not fit.
    """
    timm = import_timm(network)
    create: Callable[..., Any] = timm.create_model
    kept = published.num_classes if projection else 0
    if projection and not kept:
        raise UserError(f"{network} has no last layer to keep. Omit trunk.module.projection.")
    try:
        built = create(network, pretrained=False, num_classes=kept, **options)
    except (TypeError, AssertionError) as error:  # timm asserts that it knows a pooling, most often without a message
        own = {
            "img_size": f"trunk.images.crop={published.input_size[1]}",
            "global_pool": "trunk.module.global_pool=null",
        }
        raise UserError(
            f"{network} cannot be built with {', '.join(f'{k}={v}' for k, v in options.items())} "
            f"({_first_line(error)}). Set {' and '.join(own[name] for name in options)}."
        ) from error
    if state is None:
        return built  # type: ignore[no-any-return]
    _check_values(state, path)
    heads = published.classifier or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    headless = {name: value for name, value in state.items() if not name.startswith(tuple(f"{one}." for one in heads))}
    own, given = built.state_dict(), state if projection else headless
    if {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in given.items()}:
        files.fill(built, given, path)
        return built  # type: ignore[no-any-return]
    num_classes = published.num_classes
    if given.keys() == own.keys():  # only shapes differ, as of position embeddings, and there may be no classifier
        state, num_classes = given, kept
    overlay = {"state_dict": state, "num_classes": num_classes, "custom_load": False}
    try:
        built = create(network, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=num_classes, **options)
    except Exception as error:  # timm's converters assume the layouts that they know, and may raise anything otherwise
        raise UserError(
            f"{path} does not fit {network} ({_first_line(error)}). Give the file of this network, in timm's layout or "
            "its authors'."
        ) from error
    if not projection:
        built.reset_classifier(0)
    return built  # type: ignore[no-any-return]


def _check_values(state: Mapping[str, Tensor], path: Path) -> None:
    """Check that the tensors of a file (any shapes) are numbers that a trained network can have.

    Raises:
        UserError: one is not finite, or the variance of a batch norm is negative.
    """
    odd = [name for name, value in state.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())]
    odd += [name for name, value in state.items() if name.endswith("running_var") and bool((value < 0).any())]
    if odd:
        raise UserError(
            f"{path} is refused: {len(odd)} of its tensors hold values that no trained network has, such as "
            f"{odd[0][:80]}. Download it again from its authors."
        )


def _num_features(network: "TimmNetwork", projection: bool) -> int:
    """F, the number of features before the classifier, or after it."""
    names = ("num_classes",) if projection else ("head_hidden_size", "num_features")
    return int(next(value for name in names if (value := getattr(network, name, None))))


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
