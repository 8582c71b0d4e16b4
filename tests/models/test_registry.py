import subprocess
import sys

import pytest
import torch
from torch import nn

from whirl.models.registry import create_model, list_models, register_model
from whirl.models.wdcnn import WDCNN

BUILT_IN = ["cnn1d", "patch_transformer", "resnet18_1d", "wdcnn"]


def test_lists_built_in_networks_sorted():
    assert [name for name in list_models() if name in BUILT_IN] == BUILT_IN


def test_creates_network_with_arguments():
    network = create_model("wdcnn", 7, in_channels=3)
    assert isinstance(network, WDCNN)
    assert network(torch.zeros(2, 3, 2048)).shape == (2, 7)
    assert len(create_model("patch_transformer", 7, depth=2).blocks) == 2  # pyright: ignore


def test_unknown_name_raises_with_nearest_and_all_names():
    with pytest.raises(ValueError, match=r"'wdcn'; did you mean 'wdcnn'\? Expected one of: .*cnn1d, .*resnet18_1d"):
        create_model("wdcn", 4)
    with pytest.raises(ValueError, match=r"unknown model '\?\?'; expected one of: "):
        create_model("??", 4)


def test_unexpected_argument_raises():
    with pytest.raises(TypeError, match="widht"):
        create_model("patch_transformer", 4, widht=64)


def test_registered_function_is_called_with_counts():
    @register_model("test_registry_linear")
    def linear(num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))

    assert "test_registry_linear" in list_models()
    assert create_model("test_registry_linear", 5, in_channels=2)(torch.zeros(3, 2, 64)).shape == (3, 5)


def test_redefinition_replaces_and_other_definition_raises():
    def define(offset: int) -> None:
        @register_model("test_registry_again")
        def network(num_classes: int, in_channels: int) -> nn.Module:
            return nn.Linear(num_classes + offset, in_channels)

    define(0)
    define(1)  # like running a notebook cell again: replaces the first definition
    assert create_model("test_registry_again", 4).in_features == 5
    for taken in ("test_registry_again", "wdcnn"):
        with pytest.raises(ValueError, match=f"{taken!r} already exists"):
            register_model(taken)(lambda num_classes, in_channels: nn.Identity())


def test_built_in_name_is_reserved_before_its_module_is_imported():
    code = """
from whirl.models.registry import create_model, register_model
try:
    register_model("wdcnn")(dict)
except ValueError:
    print(type(create_model("wdcnn", 3)).__module__)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "whirl.models.wdcnn"


def test_listing_names_does_not_import_torch():
    code = """
import sys
from whirl.models.registry import list_models
print("wdcnn" in list_models(), "torch" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False"]
