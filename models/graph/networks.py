"""Networks of keras.applications that take images without scaling them, known by the names of their first layers.

The name of the model is not enough: a user may choose another name, build the network around their own tensor, or
take only its first layers. Networks that have their preprocessing inside are not here.
"""

from typing import Any, Literal

from dropzoo.models.graph.walk import graph_of

Takes = Literal["symmetric", "centred"]
"""Whether the published weights take images from -1 to 1, or images minus the means of ImageNet."""

_NETWORKS: dict[str, tuple[str, ...]] = {
    "densenet": ("conv1_conv", "conv1_bn", "conv2_block1_concat"),
    "mobilenet": ("conv1", "conv_dw_1", "conv_pw_1"),
    "mobilenet_v2": ("Conv1", "expanded_conv_depthwise"),
    "xception": ("block1_conv1_bn", "block2_sepconv1"),
    "inception_v3": ("mixed0",),
    "inception_resnet_v2": ("mixed_5b",),
    "nasnet": ("stem_conv1", "reduction_conv_1_stem_1"),
    "resnet_v2": ("conv1_conv", "conv2_block1_preact_bn"),
    "resnet": ("conv1_conv", "conv1_bn", "conv2_block1_add"),
    "vgg": ("block1_conv1", "block1_conv2", "block1_pool", "block2_conv1"),
}
_CENTRED = ("resnet", "vgg", "densenet")


def network_in(model: Any) -> tuple[str, Takes] | None:
    """Returns the network of keras.applications whose layers a graph has, and what its weights take, or None.

    Args:
        model: A model or another operation. Models inside it are not searched.
    """
    graph = graph_of(model)
    if graph is None:
        return None
    names = {operation.name for operation in graph.operations}
    for network, layers in _NETWORKS.items():
        if names.issuperset(layers):
            return network, "centred" if network in _CENTRED else "symmetric"
    return None
