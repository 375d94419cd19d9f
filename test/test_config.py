"""Configurations refuse bad values with clear messages and survive a round trip through JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
from dataclasses import replace

import pytest

from yolact_ros.config import (
    Checked,
    FlowConfig,
    ModelConfig,
    PostprocessConfig,
    model_from_mapping,
    override,
    setting,
    to_mapping,
)
from yolact_ros.errors import ConfigError
from yolact_ros.variants import VARIANTS, variant


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_survives_json(name):
    model = VARIANTS[name]
    assert model_from_mapping(json.loads(json.dumps(to_mapping(model)))) == model


MODULES = (
    *("config.model", "config.runtime", "export.options", "ros.parameters.settings"),
    *("train.augment", "train.config", "train.losses"),
)


@pytest.mark.parametrize("module", MODULES)
def test_every_setting_is_described(module):
    if module.startswith("train"):
        pytest.importorskip("torch")
    classes = [c for c in vars(importlib.import_module(f"yolact_ros.{module}")).values()]
    settings = [f for c in classes if dataclasses.is_dataclass(c) for f in dataclasses.fields(c)]
    docs = {f.name: f.metadata["doc"] for f in settings if "for_papers" in f.metadata}
    assert docs and all(docs.values()), [name for name, doc in docs.items() if not doc]


def test_a_description_may_take_several_lines():
    class Lamp(Checked):
        """Configures a lamp.

        Attributes:
            brightness: From dark: 0,
                to bright (reference: sun).
            colour: Hue.
        """

        brightness: int = setting(1, range=(0, 9))
        colour: str = setting("red")
        unknown: int = setting(0)

    described = [vars(Lamp)[name].metadata["doc"] for name in ("brightness", "colour", "unknown")]
    assert described == ["From dark: 0, to bright (reference: sun)", "Hue", ""]
    assert vars(Lamp)["brightness"].metadata["range"] == (0, 9)


def test_more_classes_than_ids_are_refused():
    names = tuple(map(str, range(2**15 + 1)))
    with pytest.raises(ConfigError, match="32769 classes"):
        ModelConfig("huge", names)
    assert ModelConfig("large", names[:-1]).num_classes == 2**15


def test_an_unknown_key_is_refused_with_similar_ones():
    with pytest.raises(ConfigError, match="score_threshold"):
        override(PostprocessConfig(), {"score_treshold": 0.5})


def test_an_unknown_nested_key_names_its_path():
    with pytest.raises(ConfigError, match="backbone.nme"):
        override(variant("yolact_base"), {"backbone": {"nme": "resnet50"}})


def test_a_value_of_another_type_is_refused():
    with pytest.raises(ConfigError, match="top_k"):
        override(PostprocessConfig(), {"top_k": "many"})


def test_a_boolean_is_not_a_number():
    with pytest.raises(ConfigError, match="top_k"):
        override(PostprocessConfig(), {"top_k": True})


def test_an_integer_is_accepted_as_a_float():
    assert override(PostprocessConfig(), {"score_threshold": 1}).score_threshold == 1.0


def test_a_value_outside_its_range_names_the_range():
    with pytest.raises(ConfigError, match="from 0.0 to 1.0"):
        PostprocessConfig(score_threshold=1.5)


def test_nan_is_outside_every_range():
    with pytest.raises(ConfigError, match="score_threshold"):
        PostprocessConfig(score_threshold=float("nan"))


def test_an_invalid_choice_lists_the_valid_ones():
    with pytest.raises(ConfigError, match="squash"):
        replace(variant("yolact_base"), resize="stretch")


def test_a_tuple_of_the_wrong_length_is_refused():
    with pytest.raises(ConfigError, match="input_size"):
        override(variant("yolact_base"), {"input_size": [1, 2, 3]})


def test_a_model_without_classes_is_refused():
    with pytest.raises(ConfigError, match="no classes"):
        ModelConfig("empty", ())


def test_plain_values_without_a_name_are_refused():
    with pytest.raises(ConfigError, match="name"):
        model_from_mapping({"classes": ["a"]})


def test_re_scoring_of_tiny_prototypes_is_refused():
    with pytest.raises(ConfigError, match="249"):
        replace(variant("yolact_plus_base"), input_size=(248, 400))
    replace(variant("yolact_plus_base"), input_size=(249, 400))


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ConfigError, match="yolact_plus_base"):
        variant("yolact_minus")


def test_a_flow_network_can_be_added_changed_and_removed():
    image = variant("yolact_base")
    assert image.flow is None
    video = override(image, {"flow": {"spa": False}})
    assert video.flow == FlowConfig(spa=False)
    assert model_from_mapping(json.loads(json.dumps(to_mapping(video)))) == video
    assert override(video, {"flow": {"channels": 16}}).flow == FlowConfig(16, spa=False)
    assert override(video, {"flow": None}) == image
    assert override(image, {"flow": {}}).flow == FlowConfig()


def test_a_flow_network_that_is_not_a_mapping_is_refused():
    with pytest.raises(ConfigError, match="flow"):
        override(variant("yolact_base"), {"flow": True})


def test_a_model_stored_before_flow_networks_existed_has_none():
    plain = to_mapping(variant("yolact_resnet50"))
    del plain["flow"]
    assert model_from_mapping(plain) == variant("yolact_resnet50")
