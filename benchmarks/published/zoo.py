"""Networks that others publish, in small configurations with random weights, and plans of dropout for them."""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras

Plan = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A network of a package, and the options of its trial.

    Attributes:
        package: The name of the package, as pip takes it.
        name: The name of the network in the table.
        make: Function that builds it with fresh weights.
        plan: The plan of dropout for `models.retrofit`.
        shape: The shape of one image.
        task: What the output means.
        samples: Int, the number of samples, and of the plain passes that they are compared with.
        masks: Int, the number of masks of `dropout_report`. A network of tiny maps needs more.
        high: The value of a white pixel.
        options: Arguments for `MonteCarlo` and `export_model`, such as `from_logits`.
        limits: Dict from the steps that do not work on it to the reasons.
    """

    package: str
    name: str
    make: Callable[[], keras.Model]
    plan: Plan
    shape: tuple[int, ...] = (32, 32, 3)
    task: str = "multi_class"
    samples: int = 60
    masks: int = 8
    high: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The name of its test."""
        return f"{self.package}-{self.name}".replace(" ", "_")

    @property
    def version(self) -> str | None:
        """The installed version of the package; None if it is not installed."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None


def _of(module: str, of: str, **options: Any) -> Callable[[], keras.Model]:
    """Returns a function that imports a module and calls its function of this name."""
    return lambda: getattr(importlib.import_module(module), of)(**options)


def _application(name: str, plan: Plan, size: int = 32, samples: int = 24, high: float = 1.0) -> Published:
    """A network of keras.applications for three classes."""
    make = _of("keras.applications", name, weights=None, classes=3, input_shape=(size, size, 3))
    return Published("keras", name, make, plan, (size, size, 3), samples=samples, high=high)


_SPATIAL = "spatial_dropout2d:0.1"

APPLICATIONS = [
    _application("ConvNeXtTiny", {"convnext_tiny_stage_3_*": 0.1, "before:Dense": 0.1}, high=255.0),
    _application("DenseNet121", {"pool?_conv": _SPATIAL, "avg_pool": 0.3}),
    _application("EfficientNetB0", {"block7a_project_conv": _SPATIAL, "top_conv": _SPATIAL}, high=255.0),
    _application("EfficientNetV2B0", {"block6h_project_conv": _SPATIAL, "top_conv": _SPATIAL}, high=255.0),
    _application("InceptionResNetV2", {"mixed_7a": _SPATIAL, "avg_pool": 0.3}, 75),
    _application("InceptionV3", {"mixed8": _SPATIAL, "avg_pool": 0.3}, 75),
    _application("MobileNet", {"conv_pw_1?": _SPATIAL}),
    _application("MobileNetV2", {"block_16_project": _SPATIAL, "global_average_pooling2d*": 0.3}),
    _application("MobileNetV3Small", {"expanded_conv_10_project": _SPATIAL}, high=255.0),
    _application("NASNetMobile", {"normal_concat_12": _SPATIAL, "global_average_pooling2d*": 0.3}),
    _application("ResNet50", {"conv4_block*_out": _SPATIAL, "avg_pool": 0.3}),
    _application("ResNet50V2", {"conv4_block*_out": _SPATIAL, "avg_pool": 0.3}),
    _application("VGG16", {"block*_conv1": _SPATIAL, "fc*": 0.5}),
    _application("Xception", {"block14_sepconv1": _SPATIAL, "avg_pool": 0.3}, 71),
]


def _medicai(of: str, **options: Any) -> Callable[[], keras.Model]:
    return _of("medicai.models", of, **options)


def _medicai_transunet(*shape: int) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        models = importlib.import_module("medicai.models")
        encoder = models.ResNetBackbone(
            input_shape=shape, num_blocks=[1, 1, 1, 1], block_type="basic_block", num_filters=[64, 32, 32, 32]
        )
        sizes = {"num_vit_layers": 1, "num_heads": 2, "num_queries": 4, "embed_dim": 32, "mlp_dim": 16}
        return models.TransUNet(encoder=encoder, num_classes=2, decoder_filters=(32, 32, 32, 32, 32), **sizes)

    return make


def _medicai_unet3d() -> keras.Model:
    models = importlib.import_module("medicai.models")
    encoder = models.ResNetBackbone(
        input_shape=(32, 32, 32, 1), num_blocks=[1, 1, 1, 1], block_type="basic_block", num_filters=[64, 8, 8, 8]
    )
    return models.UNet(encoder=encoder, num_classes=1, decoder_filters=(8, 8, 4, 4, 4))


MEDICAI = [
    Published(
        "medicai",
        "ConvNeXt backbone",
        _medicai(
            "ConvNeXtBackbone",
            name="convnext",
            input_shape=(32, 32, 3),
            depths=[1, 1, 2, 1],
            projection_dims=[8, 16, 16, 32],
            drop_path_rate=0.3,
        ),
        {"after:Conv2D": _SPATIAL},
        task="regression",
    ),
    Published(
        "medicai",
        "Swin backbone",
        _medicai(
            "SwinBackbone",
            input_shape=(32, 32, 3),
            embed_dim=8,
            depths=[2, 2],
            num_heads=[2, 2],
            window_size=[2, 2],
            patch_size=[2, 2],
            drop_path_rate=0.3,
            attn_drop_rate=0.1,
        ),
        {"patching_and_embedding": 0.1, "swin_feature1": 0.1},
        task="regression",
    ),
    Published(
        "medicai",
        "TransUNet",
        _medicai_transunet(32, 32, 3),
        {"after:Conv2D": _SPATIAL},
        limits={"build": "its ResizingND cannot be traced by Keras' own predict"},
    ),
    Published(
        "medicai",
        "TransUNet 3-D",
        _medicai_transunet(32, 32, 32, 1),
        {"after:Conv3D": "spatial_dropout3d:0.1"},
        (32, 32, 32, 1),
        samples=24,
    ),
    Published(
        "medicai",
        "U-Net 3-D",
        _medicai_unet3d,
        {"after:Conv3D": "spatial_dropout3d:0.1"},
        (32, 32, 32, 1),
        "binary",
        30,
    ),
    Published(
        "medicai",
        "MiT backbone",
        _medicai(
            "MiTBackbone",
            input_shape=(32, 32, 3),
            project_dim=[8, 8, 8, 8],
            num_heads=[1, 2, 2, 2],
            depths=[1, 1, 1, 1],
            max_drop_path_rate=0.3,
        ),
        {"after:LayerNormalization": 0.1},
        task="regression",
    ),
]


def _segmodels(kind: str, **options: Any) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        package = importlib.import_module("segmodels_keras")
        return getattr(package, kind)(encoder_weights=None, **options)

    return make


SEGMODELS = [
    Published(
        "segmodels-keras",
        "Unet (resnet18)",
        _segmodels(
            "Unet", backbone_name="resnet18", input_shape=(32, 32, 3), classes=1, decoder_filters=(16, 16, 8, 8, 8)
        ),
        {"decoder*": _SPATIAL},
        task="binary",
    ),
    Published(
        "segmodels-keras",
        "FPN (mobilenetv2)",
        _segmodels(
            "FPN",
            backbone_name="mobilenetv2",
            input_shape=(32, 32, 3),
            classes=3,
            activation="softmax",
            pyramid_block_filters=16,
        ),
        {"after:Conv2D": _SPATIAL},
    ),
    Published(
        "segmodels-keras",
        "Linknet (vgg16)",
        _segmodels("Linknet", backbone_name="vgg16", input_shape=(32, 32, 3), classes=2, activation="sigmoid"),
        {"after:Conv2D": _SPATIAL},
        task="multi_label",
    ),
    Published(
        "segmodels-keras",
        "PSPNet (efficientnetb0)",
        _segmodels(
            "PSPNet",
            backbone_name="efficientnetb0",
            input_shape=(48, 48, 3),
            classes=3,
            activation="softmax",
            psp_conv_filters=16,
        ),
        {"psp*": _SPATIAL},
        (48, 48, 3),
    ),
]


def _kimm(name: str, plan: Plan | None = None, size: int = 32, **options: Any) -> Published:
    make = _of("kimm.models", name, weights=None, classes=3, input_shape=(size, size, 3), **options)
    return Published(
        "kimm",
        name,
        make,
        plan or {"after:Conv2D": "spatial_dropout2d:0.05"},
        (size, size, 3),
        samples=24,
        high=255.0,
    )


KIMM = [
    _kimm("ConvNeXtAtto"),
    _kimm("GhostNetW050"),
    _kimm("MobileViTXXS", size=64),
    _kimm("RepVGGA0", plan={"stages_2_?": _SPATIAL}),
    _kimm("VisionTransformerTiny32", plan={"after:Dense": 0.1}, size=64),
]


def _hub(name: str, **options: Any) -> Callable[[], keras.Model]:
    return _of("keras_hub.models", name, **options)


def _hub_mit() -> keras.Model:
    return _hub(
        "MiTBackbone",
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.3,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=(32, 32, 3),
        hidden_dims=[8, 16],
    )()


_RESNET = dict(
    input_conv_filters=[64],
    input_conv_kernel_sizes=[3],
    stackwise_num_filters=[64, 16],
    stackwise_num_blocks=[1, 1],
    stackwise_num_strides=[1, 2],
    block_type="basic_block",
    image_shape=(32, 32, 3),
)


def _hub_segformer() -> keras.Model:
    models = importlib.import_module("keras_hub.models")
    backbone = models.SegFormerBackbone(image_encoder=_hub_mit(), projection_filters=8)
    return models.SegFormerImageSegmenter(backbone=backbone, num_classes=2)


def _hub_classifier() -> keras.Model:
    models = importlib.import_module("keras_hub.models")
    return models.ImageClassifier(backbone=models.ResNetBackbone(**_RESNET), num_classes=3, dropout=0.2)


HUB = [
    Published(
        "keras-hub", "MiTBackbone", _hub_mit, {"after:OverlappingPatchingAndEmbedding": 0.1}, task="regression"
    ),
    Published(
        "keras-hub",
        "SwinTransformerBackbone",
        _hub(
            "SwinTransformerBackbone",
            image_shape=(32, 32, 3),
            embed_dim=8,
            depths=[2, 2],
            num_heads=[2, 2],
            window_size=2,
            drop_path=0.3,
            dropout_rate=0.1,
        ),
        {"stage_0": 0.1},
        task="regression",
    ),
    Published(
        "keras-hub",
        "ResNetBackbone",
        _hub("ResNetBackbone", **_RESNET),
        {"after:Conv2D": _SPATIAL},
        task="regression",
    ),
    Published(
        "keras-hub",
        "ImageClassifier (ResNet)",
        _hub_classifier,
        {"inside:res_net_backbone* after:Conv2D": _SPATIAL},
    ),
    Published("keras-hub", "SegFormerImageSegmenter", _hub_segformer, {"after:Conv2D": _SPATIAL}),
    Published(
        "keras-hub",
        "ViTBackbone",
        _hub(
            "ViTBackbone",
            image_shape=(32, 32, 3),
            patch_size=8,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            mlp_dim=16,
            dropout_rate=0.1,
            attention_dropout=0.1,
        ),
        {"vit_patching_and_embedding": 0.1},
        task="regression",
    ),
    Published(
        "keras-hub",
        "DenseNetBackbone",
        _hub("DenseNetBackbone", stackwise_num_repeats=[2, 2, 2], image_shape=(32, 32, 3), growth_rate=4),
        {"after:Concatenate": _SPATIAL},
        task="regression",
    ),
]


def _collection(name: str, *arguments: Any, why_not: str = "", **options: Any) -> Published:
    """A network of keras-unet-collection; `why_not` says why it cannot be built."""

    def make() -> keras.Model:
        return getattr(importlib.import_module("keras_unet_collection.models"), name)(
            (32, 32, 3), *arguments, **options
        )

    task = "multi_label" if name in ("u2net_2d", "unet_3plus_2d") else "multi_class"  # they end in a sigmoid
    limits = {"build": why_not} if why_not else {}
    plan = {"after:Conv2D": _SPATIAL}
    masks = 64 if name == "u2net_2d" else 8  # its deepest maps have one pixel
    return Published("keras-unet-collection", name, make, plan, task=task, samples=24, masks=masks, limits=limits)


_OF_KERAS_2 = "it is written for Keras 2"

COLLECTION = [
    _collection("unet_2d", [4, 8, 8], 2, batch_norm=True),
    _collection("vnet_2d", [4, 8, 16], 2, why_not="it adds maps with different numbers of channels"),
    _collection("unet_plus_2d", [4, 8, 8], 2, deep_supervision=True),
    _collection("r2_unet_2d", [4, 8], 2),
    _collection("att_unet_2d", [4, 8, 8], 2),
    _collection("u2net_2d", 2, [4, 8], filter_4f_num=[8, 8], deep_supervision=True),
    _collection("unet_3plus_2d", 2, [4, 8, 8], deep_supervision=True),
    _collection("resunet_a_2d", [4, 8, 8], [1, 3], 2, why_not=_OF_KERAS_2),
    _collection("transunet_2d", [4, 8, 8], 2, num_transformer=1, why_not=_OF_KERAS_2),
    _collection("swin_unet_2d", 8, 2, 2, 2, 2, (2, 2), [2, 2], [2, 2], 8, why_not=_OF_KERAS_2),
]

ZOO = [*MEDICAI, *HUB, *COLLECTION, *SEGMODELS, *KIMM, *APPLICATIONS]
