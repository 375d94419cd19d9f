"""List the checkpoints published by the authors of YOLACT and YolactEdge."""

from __future__ import annotations

from dataclasses import dataclass

from yolact_ros.errors import WeightsError

YOLACT_README = "https://github.com/dbolya/yolact#evaluation"
PASCAL_README = "https://github.com/dbolya/yolact#pascal-sbd"
EDGE_README = "https://github.com/haotian-liu/yolact_edge#model-zoo"


@dataclass(frozen=True)
class PublishedFile:
    """Describes one checkpoint of the authors.

    Attributes:
        variant: network in the file, a key of `variants.VARIANTS`.
        file: file name, `<variant>_<epoch>_<iteration>.pth`; with a star where the authors' page
            does not give it.
        readme: page of the authors that links to it.
        url: address for programs; None if only a browser can download it.
        licence: of the authors' repository; their pages state no other for the weights.
    """

    variant: str
    file: str
    readme: str
    url: str | None = None
    licence: str = "MIT"


def _on_hugging_face(variant: str) -> PublishedFile:
    file = f"{variant}_54_800000.pth"
    repository = variant.replace("_", "-")
    url = f"https://huggingface.co/dbolya/{repository}/resolve/main/{file}"
    return PublishedFile(variant, file, YOLACT_README, url)


_HUGGING_FACE = (
    *("yolact_resnet50", "yolact_darknet53", "yolact_base", "yolact_im700"),
    *("yolact_plus_resnet50", "yolact_plus_base"),
)
# Variant of YolactEdge -> end of the file's name; `*` is unknown.
_EDGE = {
    "yolact_edge_mobilenetv2": "54_800000",
    "yolact_edge_resnet50": "54_800000",
    "yolact_edge": "54_800000",
    "yolact_edge_youtubevis_resnet50": "*",
    "yolact_edge_youtubevis": "847_50000",
    "yolact_edge_vid_resnet50": "847_50000",
    "yolact_edge_vid": "847_50000",
}
PUBLISHED: dict[str, PublishedFile] = {
    **{name: _on_hugging_face(name) for name in _HUGGING_FACE},
    "yolact_resnet50_pascal": PublishedFile(
        "yolact_resnet50_pascal", "yolact_resnet50_pascal_*.pth", PASCAL_README
    ),
    **{name: PublishedFile(name, f"{name}_{end}.pth", EDGE_README) for name, end in _EDGE.items()},
}


def published_file(name: str) -> PublishedFile:
    """Find a checkpoint by its variant or file name.

    Raises:
        WeightsError: the authors publish no such checkpoint; the message lists those that exist.
    """
    for published in PUBLISHED.values():
        if name in (published.variant, published.file):
            return published
    raise WeightsError(
        f"The authors publish no checkpoint {name!r}; they publish: {', '.join(PUBLISHED)}."
    )
