"""The settings and the conditions that several claims share, so that they also share trainings."""

from protocol import Condition, Setting

# Where overfitting exists: without dropout, these networks fit their training images completely.
OVERFITS = Setting("Fashion-MNIST, 2,000 images, CNN", "fashion_mnist", 2000, "CNN", 60)
SMALL = Setting("Fashion-MNIST, 2,000 images, small CNN", "fashion_mnist", 2000, "small CNN", 60)
COLOUR = Setting("CIFAR-10 (JPEG), 2,000 images, CNN", "cifar10", 2000, "CNN", 60, seeds=5)
RESIDUAL = Setting("Fashion-MNIST, 1,000 images, ResNet-20", "fashion_mnist", 1000, "ResNet-20", 40, seeds=5)
# From few images to many; the last ones are where data are plenty.
SIZES = (
    Setting("Fashion-MNIST, 200 images, CNN", "fashion_mnist", 200, "CNN", 160),
    OVERFITS,
    Setting("Fashion-MNIST, 6,000 images, CNN", "fashion_mnist", 6000, "CNN", 24, seeds=5),
    Setting("Fashion-MNIST, 20,000 images, CNN", "fashion_mnist", 20000, "CNN", 10, (2e-3,), seeds=5),
    Setting("Fashion-MNIST, 58,000 images, CNN", "fashion_mnist", 58000, "CNN", 4, (2e-3,), seeds=5),
)
_WINDOWS = "flip_horizontal,flip_vertical,crop=64"
NUCLEI = tuple(
    Setting(f"Nuclei, {count} images, U-Net", "nuclei", count, "U-Net", epochs, (2e-3,), 5, _WINDOWS)
    for count, epochs in ((16, 240), (64, 60), (128, 30))
)
MEMBRANES = Setting("Membranes, 20 slices, small U-Net", "membranes", 20, "small U-Net", 160, (2e-3,), 5, _WINDOWS)
SCENES = Setting("digit_scenes, 400 scenes, small U-Net", "digit_scenes", 400, "small U-Net", 40, (2e-3,), 5)

MODULES_AND_DENSE = (
    "module? 0.1 + dense* 0.3",
    "module? 0.2 + dense* 0.5",
    "module? 0.3 + dense* 0.5",
)
NONE = Condition("none")
DROPOUT = Condition("dropout", MODULES_AND_DENSE, measures=("few",), doubles=True)
BRANCHES = Condition("dropout", ("stage*_branch 0.1 + head 0.3", "stage*_branch 0.2 + head 0.5"), doubles=True)
BOTTLENECK = Condition(
    "dropout",
    (
        "bottleneck_conv? 0.2 + decoder1_conv? 0.1",
        "bottleneck_conv? 0.4 + decoder1_conv? 0.2",
    ),
    doubles=True,
)
