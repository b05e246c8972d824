"""The contract of every model, as a table over the registry, and what is particular to one of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _tiny import TINY, VARIANTS, WRONG_BEFORE_THE_BUILDER, WRONG_IN_EVERY_BUILDER, build
from dropzoo import layers, models
from dropzoo.models import registry

every_model = pytest.mark.parametrize("name", TINY)


def images(size: tuple[int, int], batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((batch, *size, 1), "float32")


def test_every_registered_model_has_a_row():
    assert {*TINY, *(v for same in VARIANTS.values() for v in same)} == set(models.list_models())


@pytest.mark.costly(keep=3)
@pytest.mark.covering("name", "plan")
@every_model
@pytest.mark.parametrize("plan", [None, "paper", {"*": 0.2}], ids=["no plan", "paper", "all"])
def test_every_model_runs_on_odd_sizes(name, plan):
    tiny, model = TINY[name], build(name, dropout=plan)
    check_sites(model, any_placed=plan is not None)
    for size in tiny.sizes:
        x = images(size)
        logits = model(x)
        assert logits.shape == ((2, *size, 3) if tiny.dense_output else (2, 3)) and logits.dtype == "float32"
        np.testing.assert_array_equal(logits, model(x, training=False))
        assert np.isfinite(model(x, training=True)).all()


def check_sites(model: keras.Model, any_placed: bool) -> None:
    """The layers of a model have the rates that its sites tell."""
    placed = [site for site in models.list_sites(model) if site.spec]
    assert bool(placed) == any_placed
    assert all(model.get_layer(f"{site.name}_dropout").rate == layers.get(site.spec).rate for site in placed)


@pytest.mark.costly(keep=3)
@pytest.mark.covering("name", "plan")
@pytest.mark.parametrize(("name", "plan"), [(n, p) for n, t in TINY.items() for p in (*t.plans, 0.3)])
def test_every_plan_builds_with_the_rates_that_its_sites_tell(name, plan):
    check_sites(build(name, dropout=plan), any_placed=plan != "none")


@pytest.mark.costly(keep=3)
@pytest.mark.covering("name", "variant")
@every_model
@pytest.mark.parametrize("variant", ["dropout:{}", "spatial_dropout2d:{}", "drop_block2d:{},block_size=3"])
def test_every_site_takes_dropout(name, variant):
    """Each its own, told from the others by the rate: all at once, and one alone."""
    sites = models.list_sites(name, **TINY[name].options)
    paths = [w.path for w in build(name).weights]
    fitting = [site for site in sites if len(site.shape) == 4 or variant.startswith("dropout")]
    for chosen in (fitting, fitting[len(fitting) // 2 :][:1]):
        plan = {site.name: variant.format((i + 1) / 1000) for i, site in enumerate(chosen)}
        model = build(name, dropout=plan)
        placed = [(s.name, s.spec, s.shape) for s in models.list_sites(model) if s.spec]
        assert placed == [(site.name, plan[site.name], site.shape) for site in chosen]
        assert [w.path for w in model.weights] == paths  # in this order they are written to files


@pytest.mark.costly(keep=3)
@pytest.mark.covering("name", "plan")
@every_model
@pytest.mark.parametrize("plan", ["paper", {"*": 0.4}], ids=["paper", "all"])
def test_a_plan_changes_nothing_but_the_dropout_layers(name, plan, tmp_path):
    """Names, weights and inference stay; weights files go from any plan to any other; looking changes nothing."""
    keras.utils.set_random_seed(3)
    plain = build(name)
    x = images(TINY[name].sizes[0])
    keras.utils.set_random_seed(3)
    models.list_sites(name, **TINY[name].options)
    model = build(name, dropout=plan)
    kept = [layer.name for layer in model.layers if not isinstance(layer, layers.BaseDropout)]
    assert sorted(kept) == sorted(layer.name for layer in plain.layers)
    assert [w.path for w in model.weights] == [w.path for w in plain.weights]
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(model(x), plain(x))
    assert plain.to_json() == build(name, dropout={"*": None}).to_json()
    model.set_weights([w + 0.1 for w in model.get_weights()])
    model.save_weights(tmp_path / "w.weights.h5")
    plain.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(model(x), plain(x))


@pytest.mark.costly(keep=3)
@every_model
def test_a_loaded_model_knows_its_sites(name, tmp_path):
    model = build(name, dropout={"*": "dropout:0.2"})
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert models.list_sites(loaded) == models.list_sites(model)
    x = images(TINY[name].sizes[0])
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("name", "policy"), [*((name, "mixed_float16") for name in TINY), ("simple_cnn", "mixed_bfloat16")]
)
def test_logits_are_float32_in_mixed_precision_also_a_single_one(name, policy):
    keras.config.set_dtype_policy(policy)
    logits = build(name, dropout={"*": 0.2}, num_classes=1)(images(TINY[name].sizes[0]), training=True)
    assert logits.dtype == "float32" and logits.shape[-1] == 1


@pytest.mark.costly(keep=2)
@pytest.mark.covering("name", "normalization")
@pytest.mark.parametrize(("name", "normalization"), [(m, n) for m, t in TINY.items() for n in t.normalizations])
def test_learns(name, normalization):
    model = build(name, dropout="paper", normalization=normalization, weight_decay=1e-4)
    x = images((8, 8), batch=12)
    y = np.arange(12) % 3
    if TINY[name].dense_output:
        y = (x[..., 0] * 3).astype(int)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Keras has traced every layer when it built the model, so that a graph is tried with the simplest only.
    eagerly = name != "simple_cnn"
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False, run_eagerly=eagerly)
    losses = model.fit(x, y, epochs=16 if name == "vgg16" else 8, batch_size=12, verbose=0).history["loss"]
    assert min(losses[4:]) < losses[0]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *((n, o, m) for n, t in TINY.items() for o, m in (*t.wrong, *WRONG_IN_EVERY_BUILDER)),
        *(("simple_cnn", o, m) for o, m in WRONG_BEFORE_THE_BUILDER),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_a_builder_that_is_defined_again_replaces_itself(monkeypatch):
    """As when the cell of a notebook runs again."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    for units in (2, 3):

        @models.register_model
        def mine(input_shape=(4,), num_classes=3, *, dropout=None, name="mine", units=units):
            inputs = keras.Input(input_shape)
            return keras.Model(inputs, keras.layers.Dense(units)(inputs), name=name)

    assert models.build_model("mine").output_shape == (None, 3)


def test_unknown_names_and_plans_that_do_not_fit():
    with pytest.raises(ValueError, match="Unknown model 'unett'. Did you mean 'unet'"):
        models.build_model("unett")
    with pytest.raises(ValueError, match="Unknown option of unet 'depht'. Did you mean 'depth'") as error:
        models.build_model("unet", depht=2)
    assert " name," not in str(error.value)  # of which `build_model` has another
    with pytest.raises(ValueError, match="has none of the sites of the plan 'unet_2015'"):
        build("simple_cnn", dropout="unet_2015")
    with pytest.raises(ValueError, match="registered already"):
        models.register_model(type("unet", (), {}))
    with pytest.raises(ValueError, match="must be Functional or Sequential"):
        models.list_sites(keras.Model())
    with pytest.raises(ValueError, match="Options can only be passed with the name of a model"):
        models.list_sites(build("unet"), depth=2)


@pytest.mark.costly(keep=0)
def test_unet_takes_any_size_static_or_not():
    for size in [(30, 30), (61, 47), (1, 1), (16, 32)]:
        dynamic = build("unet", dropout="paper")
        static = build("unet", dropout="paper", input_shape=(*size, 1))
        static.set_weights(dynamic.get_weights())
        assert static.output_shape == (None, *size, 3)
        np.testing.assert_allclose(static(images(size)), dynamic(images(size)), atol=1e-5)


def test_unet_has_the_published_number_of_parameters():
    """Without normalisation, with two logits: the layers of the paper's figure, counted by hand."""
    widths = [64, 128, 256, 512, 1024]

    def conv(kernel: int, channels: int, filters: int) -> int:
        return kernel**2 * channels * filters + filters

    down = sum(conv(3, c, f) + conv(3, f, f) for c, f in zip([1, *widths], widths, strict=False))
    up = sum(conv(2, 2 * f, f) + conv(3, 2 * f, f) + conv(3, f, f) for f in widths[:4])
    assert models.build_model("unet", normalization=None).count_params() == down + up + conv(1, 64, 2)


@pytest.mark.parametrize("upsample", ["transpose", "resize"])
def test_unet_upsampling(upsample):
    assert build("unet", upsample=upsample)(images((12, 7))).shape == (2, 12, 7, 3)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"downsample": "max_pool"}, (7, 7)),
        ({"downsample": "average_pool", "strides": (2, 3)}, (4, 4)),
        ({"downsample": "stride", "convs_per_module": 2}, (7, 7)),
        ({"downsample": "valid", "convs_per_module": (1, 3), "kernel_size": (5, 3)}, (18, 18)),
        ({"padding": ("same", "valid")}, (6, 6)),
    ],
)
def test_simple_cnn_shrinks_as_told(options, shape):
    sites = models.list_sites("simple_cnn", filters=(4, 6), **options)
    (features,) = [s.shape[1:3] for s in sites if s.name == "features"]
    assert features == shape


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("strides", 0, "pool_size"),  # by Keras
        ("padding", "", "padding"),
        ("weight_decay", True, "weight_decay"),
        ("weight_decay", np.inf, "weight_decay"),
    ],
)
def test_simple_cnn_refuses_a_value_that_could_pass_for_a_default(option, value, named):
    with pytest.raises(ValueError, match=named):
        models.build_model("simple_cnn", **{option: value})


def test_simple_cnn_has_the_placements_people_discuss():
    names = [s.name for s in models.list_sites("simple_cnn", filters=(4, 6), convs_per_module=2, dense=(8, 8))]
    assert names == [
        "input",
        "module1_conv1",  # between convolutions back to back
        "module1_conv2",
        "module1",  # between modules
        "module2_conv1",
        "module2_conv2",
        "module2",
        "features",  # before Flatten
        "dense1",  # between dense layers
        "dense2",
        "head",
    ]


def test_an_activation_dropped_after_a_conv_is_zero_for_every_filter_of_the_next():
    """Dropout acts on the feature map, not on the weights of a filter: no filter of the next convolution sees a
    dropped unit, and all see a kept one."""
    options = {"filters": (4,), "convs_per_module": 2, "activation": "elu", "normalization": None}
    model = models.build_model("simple_cnn", dropout={"module1_conv1": 0.5}, **options)
    x = tf.constant(images((28, 28)))
    with tf.GradientTape(persistent=True) as tape:
        activation = model.get_layer("module1_conv1")(model.get_layer("module1_conv1_conv")(x))
        tape.watch(activation)
        dropped = model.get_layer("module1_conv1_dropout")(activation, training=True)
        filters = tf.unstack(model.get_layer("module1_conv2_conv")(dropped), axis=-1)
    for one in filters:
        influence = tape.gradient(one, activation)
        np.testing.assert_array_equal(influence == 0, dropped == 0)


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        for use in (models.build_model, models.list_sites):
            with pytest.raises(
                ValueError, match=r"Received: 'channels_first'.*set_image_data_format\('channels_last"
            ):
                use("unet")
    finally:
        keras.config.set_image_data_format("channels_last")
