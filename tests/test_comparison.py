"""Comparing another implementation with a bundle: whose arrays are whose, how far apart they are, and what is said."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
from nezha_np.layers.masks import additive_mask
from nezha_np.oracle.alignment import align
from nezha_np.oracle.description import describe_difference

CONFIG = nz.NezhaConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=16, max_relative_position=3,
)  # fmt: skip
IDS = np.array([[2, 5, 6, 3], [2, 7, 3, 0]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
Q = "encoder.layer.0.attention.self.q"  # (B, N, Q, D) = (2, 2, 4, 4)
FEED_FORWARD = "encoder.layer.1.intermediate"  # (2, 4, 12)


@pytest.fixture(scope="module")
def bundle():
    return nz.oracle.record(CONFIG, IDS, head="masked_lm", labels=IDS, attention_mask=MASK)


def in_dtype(arrays, dtype="float32"):
    with np.errstate(over="ignore"):  # the lowest number of float64, in the mask
        return {name: array.astype(dtype) for name, array in arrays.items()}


def names_of(bundle, theirs, **options):
    return list(align(bundle, theirs, **options).arrays)


# -------------------------------------------------------------------------------------------------------------- names


def test_all_of_a_bundle_agrees_with_itself_in_the_order_in_which_it_was_made(bundle):
    theirs = dict(reversed(bundle.arrays.items()))
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison and comparison.dtype == "float64" and comparison.missing == comparison.unknown == ()
    assert [row.name for row in comparison.rows] == list(bundle.arrays)
    assert comparison.summary() == f"all {len(bundle.arrays)} arrays agree within the tolerances of float64"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("embeddings", "embeddings"),
        ("nezha.embeddings", "embeddings"),
        ("bert.encoder.layer.1.output", "encoder.layer.1.output"),
        ("trace/convbert.embeddings", "embeddings"),
        ("logits", "outputs/logits"),
        ("outputs/logits", "outputs/logits"),
        ("loss", "loss"),
        ("gradients/nezha.embeddings.word_embeddings.weight", "gradients/embeddings.word_embeddings.weight"),
        ("gradients/cls.predictions.decoder.bias", "gradients/cls.predictions.bias"),
        ("gradients/loss", "gradients/loss"),
    ],
)
def test_a_name_may_have_a_models_prefix_and_an_output_its_own_name(bundle, theirs, ours):
    assert names_of(bundle, {theirs: bundle.arrays[ours]}) == [ours]


def test_a_star_in_a_rename_stands_for_the_same_text_in_both_names(bundle):
    theirs = {f"blocks.{layer}.attn.q": bundle.trace[f"encoder.layer.{layer}.attention.self.q"] for layer in (0, 1)}
    rename = {"blocks.*.attn.q": "encoder.layer.*.attention.self.q"}
    assert names_of(bundle, theirs, rename=rename) == [f"encoder.layer.{layer}.attention.self.q" for layer in (0, 1)]


@pytest.mark.parametrize(
    ("rename", "theirs", "ours"),
    [
        ({"blocks.*": "encoder.layer.*"}, "blocks.1.intermediate", "encoder.layer.1.intermediate"),
        ({"*.*": "encoder.*.*"}, "layer.1.output", "encoder.layer.1.output"),
        ({"x": "embeddings", "*": "pooler"}, "x", "embeddings"),
        ({"b.*": "encoder.layer.*", "b.*.f": "encoder.layer.*.intermediate"}, "b.1.f", "encoder.layer.1.intermediate"),
        ({"emb": "embeddings"}, "nezha.emb", "embeddings"),
        ({"emb.word": "embeddings.word_embeddings"}, "gradients/emb.word.weight",
         "gradients/embeddings.word_embeddings.weight"),
        ({"outputs/0": "loss"}, "outputs/0", "loss"),
        ({"outputs/1": "logits"}, "outputs/1", "outputs/logits"),
        ({"grad:head": "gradients/cls.predictions.bias"}, "grad:head", "gradients/cls.predictions.bias"),
        ({"blocks.**": "encoder.layer.**"}, "blocks.1.attention.self.q", "encoder.layer.1.attention.self.q"),
        ({"net.**.act": "encoder.**.intermediate_act_fn"}, "net.layer.0.intermediate.act",
         "encoder.layer.0.intermediate.intermediate_act_fn"),
        ({"*": "encoder"}, "gradients/enc.layer.0.output.dense.bias", "gradients/encoder.layer.0.output.dense.bias"),
    ],
)  # fmt: skip
def test_a_rename_acts_on_what_lies_below_it_too_and_of_several_that_with_the_most_parts(bundle, rename, theirs, ours):
    assert names_of(bundle, {theirs: bundle.arrays[ours]}, rename=rename) == [ours]


def test_a_star_stands_for_no_dot(bundle):
    with pytest.raises(ValueError, match=r"expected some of the bundle's names"):
        align(bundle, {"blocks.0.1": bundle.trace["embeddings"]}, rename={"blocks.*": "embeddings"}, transposed=True)


def test_unknown_names_are_listed_and_not_compared(bundle):
    comparison = nz.oracle.compare(bundle, {"embeddings": bundle.trace["embeddings"], "my_rope": np.zeros(3)})
    assert comparison and comparison.unknown == ("my_rope",)
    assert "not in the bundle, and not compared: my_rope" in comparison.summary()
    count = len(bundle.arrays)
    assert f"of the bundle's {count} arrays, {count - 1} were not given" in comparison.summary()


def test_two_of_their_names_for_one_of_ours_are_refused(bundle):
    array = bundle.trace["embeddings"]
    with pytest.raises(ValueError, match=r"^theirs: expected one array for embeddings, got embeddings and bert.embedd"):
        nz.oracle.compare(bundle, {"embeddings": array, "bert.embeddings": array})


def test_nothing_in_common_is_said_with_names_of_both(bundle):
    message = r"^theirs: expected some of the bundle's names \(attention_mask, .*got a, b: give a table of renames$"
    with pytest.raises(ValueError, match=message):
        nz.oracle.compare(bundle, {"a": np.zeros(1), "b": np.zeros(1)})
    with pytest.raises(ValueError, match=r"got no array: give a table"):
        nz.oracle.compare(bundle, {})


def test_a_rename_that_gives_nothing_is_listed_with_its_reason(bundle):
    theirs = {"emb": bundle.trace["embeddings"], "blocks.0.norm": np.zeros(3)}
    rename = {"emb": "embeddings", "blocks.*.norm": "encoder.layer.*.norm", "blok.*.q": "encoder.layer.*.attention",
              "embs": "bert.embeddings", "out": "logits"}  # fmt: skip
    comparison = nz.oracle.compare(bundle, theirs, rename=rename)
    nothing, misspelt = "gives none of the bundle's names, encoder.layer.*.norm", "fits none of your names"
    assert comparison.idle == {"blocks.*.norm": nothing, "blok.*.q": misspelt, "embs": misspelt, "out": misspelt}
    assert f"renames that change nothing: 'blocks.*.norm' {nothing}, 'blok.*.q' {misspelt}, " in comparison.summary()
    assert comparison.to_dict()["idle"] == comparison.idle


def test_a_rename_that_fits_neither_their_names_nor_the_bundles_is_refused(bundle):
    theirs = {"embeddings": bundle.trace["embeddings"]}
    message = r"^rename: expected names of theirs or of the bundle, got neither in 'blok.\*' for 'encoders.\*'$"
    with pytest.raises(ValueError, match=message):
        nz.oracle.compare(bundle, theirs, rename={"blok.*": "encoders.*", "embeddings": "embeddings"})


def test_where_nothing_is_in_common_the_renames_that_give_nothing_are_named(bundle):
    with pytest.raises(ValueError, match=r"got emb: 'embs' fits none of your names$"):
        nz.oracle.compare(bundle, {"emb": np.zeros(1)}, rename={"embs": "embeddings"})


# ------------------------------------------------------------------------------------------------------- their shapes


def test_another_shape_is_a_difference_that_says_both_shapes(bundle):
    comparison = nz.oracle.compare(bundle, {Q: bundle.trace[Q][:, :, :3], "embeddings": bundle.trace["embeddings"]})
    assert not comparison and comparison.first.name == Q
    assert f"{Q} has shape (2, 2, 3, 4), expected (2, 2, 4, 4)" in comparison.summary()
    assert "2 × 2 × 4 × 4, not 2 × 2 × 3 × 4" in comparison.table()


def test_axes_in_another_order_are_put_right_where_it_is_asked_for(bundle):
    theirs = {FEED_FORWARD: bundle.trace[FEED_FORWARD].transpose(2, 0, 1)}
    assert not nz.oracle.compare(bundle, theirs)
    assert nz.oracle.compare(bundle, theirs, transposed=True)
    assert align(bundle, theirs, transposed=True).axes == {FEED_FORWARD: (1, 2, 0)}


def test_axes_that_were_put_in_another_order_are_said(bundle):
    probs = "encoder.layer.1.attention.self.probs"  # (B, N, Q, S), theirs (B, Q, N, S)
    theirs = {probs: bundle.trace[probs].swapaxes(1, 2), "embeddings": bundle.trace["embeddings"]}
    comparison = nz.oracle.compare(bundle, theirs, transposed=True)
    assert comparison and [row.axes for row in comparison.rows] == [(), (0, 2, 1, 3)]
    assert f"taken with axes in another order: {probs} (0, 2, 1, 3)" in comparison.summary()
    heading, embeddings, moved = comparison.table().splitlines()
    assert heading.endswith("axes") and moved.endswith("(0, 2, 1, 3)") and embeddings.endswith("]")
    assert [row["axes"] for row in comparison.to_dict()["rows"]] == [[], [0, 2, 1, 3]]
    del theirs[probs]
    assert "axes" not in nz.oracle.compare(bundle, theirs, transposed=True).summary()


def test_queries_and_keys_that_are_exchanged_are_a_mistake_and_no_layout(bundle):
    probs = "encoder.layer.1.attention.self.probs"  # its shape is the same with them exchanged
    theirs = {probs: bundle.trace[probs].swapaxes(2, 3)}
    assert not nz.oracle.compare(bundle, theirs, transposed=True)
    assert "yours are the right ones with queries and keys exchanged" in list(
        describe_difference(probs, bundle.trace[probs], theirs[probs], 1e-9)
    )


def test_axes_in_another_order_are_seen(bundle):
    right, name = bundle.trace[FEED_FORWARD], "encoder.layer.1.attention.self.conv"
    taken = "transposed=True takes them so"
    assert f"yours are the right ones with axes in the order (0, 2, 1): {taken}" in list(
        describe_difference(name, right, right.swapaxes(1, 2), 1e-9)
    )
    assert f"yours are the right ones with axes in the order (0, 1, 3, 2): {taken}" in list(
        describe_difference(Q, bundle.trace[Q], bundle.trace[Q].swapaxes(2, 3), 1e-9)
    )
    assert not any("axes" in line for line in describe_difference(name, right, right.swapaxes(1, 2) + 1, 1e-9))
    summary = nz.oracle.compare(bundle, {FEED_FORWARD: right.swapaxes(1, 2)}).summary()
    assert "has shape (2, 12, 4), expected (2, 4, 12): transposed=True takes axes in another order" in summary


def test_the_mask_of_the_inputs_is_said_not_to_be_that_of_the_bundle(bundle):
    summary = nz.oracle.compare(bundle, {"attention_mask": MASK}).summary()
    assert "attention_mask has shape (2, 4), expected (2, 1, 1, 4): the bundle's is the additive mask" in summary
    assert "(B, 1, 1, S) or (B, 1, Q, S), 0 where attended to and the minimum elsewhere" in summary


def test_of_several_orders_that_fit_the_one_that_comes_closest_is_taken(bundle):
    for order in [(0, 1, 2, 3), (0, 1, 3, 2), (1, 0, 2, 3), (3, 1, 2, 0)]:  # (2, 2, 4, 4) fits in four ways
        theirs = {Q: bundle.trace[Q].transpose(order)}
        assert nz.oracle.compare(bundle, theirs, transposed=True), order


def test_wrong_numbers_move_no_axis_that_fits_as_it_is(bundle):
    noise = np.random.default_rng(0).normal(size=bundle.trace[Q].shape)
    for wrong in (noise, bundle.trace[Q] + 0.1 * noise, np.full_like(noise, np.nan), np.full_like(noise, np.inf)):
        assert align(bundle, {Q: wrong}, transposed=True).axes == {}


def test_one_number_may_have_an_axis_as_some_libraries_write_it(bundle):
    loss = bundle.outputs["loss"]
    assert nz.oracle.compare(bundle, {"loss": np.ascontiguousarray(loss)})  # NumPy's gives it an axis
    assert not nz.oracle.compare(bundle, {"loss": loss[None] + 1.0})
    assert "loss has shape (2,), expected ()" in nz.oracle.compare(bundle, {"loss": np.stack([loss, loss])}).summary()


def test_an_array_with_more_axes_or_fewer_fits_in_no_order(bundle):
    theirs = {Q: bundle.trace[Q][0], "embeddings": bundle.trace["embeddings"][None]}
    assert set(align(bundle, theirs, transposed=True).wrong_shape) == set(theirs)


def test_what_they_make_once_for_all_texts_is_compared_with_each():
    config = nz.BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    bundle = nz.oracle.record(config, IDS, head="masked_lm", labels=IDS)
    name = "embeddings.position_embeddings"
    theirs = {name: bundle.trace[name][:1], f"gradients/{name}": bundle.gradients[name].sum(axis=0, keepdims=True)}
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison and [row.name for row in comparison.rows] == [name]
    assert comparison.unknown == (f"gradients/{name}",)  # the sum over the texts, which the bundle does not have
    assert not nz.oracle.compare(bundle, {name: theirs[name] + 1})
    assert align(bundle, {"embeddings": bundle.trace["embeddings"][:1]}).wrong_shape  # where the texts differ


# ------------------------------------------------------------------------------------------------------- their numbers


@pytest.mark.parametrize(
    ("theirs", "agrees"),
    [(np.nan, False), (np.inf, False), (-np.inf, False)],
)
def test_a_number_that_is_nan_or_infinite_on_one_side_is_a_difference(bundle, theirs, agrees):
    array = bundle.trace["embeddings"].copy()
    array[1, 2, 3] = theirs
    comparison = nz.oracle.compare(bundle, {"embeddings": array})
    assert bool(comparison) is agrees
    assert comparison.first.absolute == np.inf and comparison.first.where == (1, 2, 3)
    expected = f"embeddings differs: at [1, 2, 3] it is {theirs:g}, expected {bundle.trace['embeddings'][1, 2, 3]:.6g}"
    assert expected in comparison.summary()


def test_nan_on_both_sides_agrees():
    bundle = nz.oracle.record(CONFIG, IDS, head="masked_lm", labels=np.full_like(IDS, -100))  # a mean over nothing
    assert np.isnan(bundle.outputs["loss"])
    assert nz.oracle.compare(bundle, {"loss": np.float32(np.nan)})
    assert not nz.oracle.compare(bundle, {"loss": np.float32(0.0)})


def test_a_number_counts_as_an_array_without_axes(bundle):
    loss = float(bundle.outputs["loss"])
    for one in (loss, np.float32(loss), np.array(loss)):
        assert nz.oracle.compare(bundle, {"loss": one})
    assert not nz.oracle.compare(bundle, {"loss": round(loss) + 1})
    assert nz.oracle.compare(bundle, {"loss": loss}).dtype == "float32"  # Python's number says nothing of theirs


@pytest.mark.parametrize("lowest", [-np.inf, -1e9, -1e5, float(np.finfo("float32").min), -65504.0])
def test_every_number_that_means_never_is_the_same_in_an_additive_mask(bundle, lowest):
    mask = np.where(bundle.trace["attention_mask"] < 0, lowest, 0.0).astype(np.float32)
    assert nz.oracle.compare(bundle, {"attention_mask": mask})


def test_ten_thousand_does_not_mean_never(bundle):
    mask = np.where(bundle.trace["attention_mask"] < 0, -1e4, 0.0).astype(np.float32)
    assert nz.oracle.compare(bundle, {"attention_mask": mask}).first.theirs == -1e4


def test_integers_and_truth_values_are_compared_as_numbers(bundle):
    ones = np.ones(bundle.trace["attention_mask"].shape, bool)
    row = nz.oracle.compare(bundle, {"attention_mask": ones}).first
    assert row.theirs == 1.0 and row.dtype == "bool"
    assert nz.oracle.compare(bundle, {"embeddings": bundle.trace["embeddings"].astype(int)}).dtype == "float32"


def test_arrays_without_numbers_agree():
    empty = np.zeros((0, 3))
    bundle = nz.oracle.record(CONFIG, IDS)
    bundle.trace["nothing"] = empty
    for found in bundle.tolerances.values():
        found["nothing"] = 0.0
    row = nz.oracle.compare(bundle, {"nothing": empty.astype("float32")}, transposed=True).rows[0]
    assert row.agrees and row.absolute == row.relative == 0.0 and row.where == ()


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.zeros((2, 4, 8), complex), "complex128"),
        (np.full((2, 4, 8), "x"), "<U1"),
        (np.full((2, 4, 8), None), "object"),
        (np.zeros((2, 4, 8), "datetime64[s]"), r"datetime64\[s\]"),
    ],
)
def test_arrays_of_no_real_numbers_are_refused(bundle, array, dtype):
    with pytest.raises(TypeError, match=f"^theirs: expected real numbers, got {dtype} for embeddings$"):
        nz.oracle.compare(bundle, {"embeddings": array})


def test_what_is_no_array_is_refused(bundle):
    with pytest.raises(TypeError, match=r"^theirs: expected arrays by name, got str for embeddings$"):
        nz.oracle.compare(bundle, {"embeddings": "big"})
    with pytest.raises(TypeError, match=r"^theirs: expected a mapping of arrays or a path, got ndarray$"):
        nz.oracle.compare(bundle, bundle.trace["embeddings"])
    with pytest.raises(TypeError, match=r"^theirs: expected a name for each array, got 3$"):
        nz.oracle.compare(bundle, {3: bundle.trace["embeddings"]})
    with pytest.raises(TypeError, match=r"^theirs: expected arrays by name, got list for embeddings$"):
        nz.oracle.compare(bundle, {"loss": 1.0, "embeddings": bundle.trace["embeddings"].tolist()})


# ------------------------------------------------------------------------------------------- their dtype and tolerances


def test_the_tolerances_are_those_of_the_dtype_that_most_of_their_arrays_are_in(bundle):
    for dtype in ("float64", "float32", "float16"):
        theirs = in_dtype(bundle.trace, dtype)
        assert nz.oracle.compare(bundle, {**theirs, "loss": np.float32(bundle.outputs["loss"])}).dtype == dtype


def test_float64_is_held_to_its_own_tolerances(bundle):
    array = bundle.trace["embeddings"]
    assert nz.oracle.compare(bundle, {"embeddings": array * (1 + 2e-16)})
    assert not nz.oracle.compare(bundle, {"embeddings": array * (1 + 1e-12)})
    assert nz.oracle.compare(bundle, {"embeddings": array * (1 + 1e-12)}, dtype="float32")


def test_bfloat16_is_known_by_its_bits_where_it_came_as_float32(bundle):
    def cut(array):  # towards zero, as some chips do
        return (array.view(np.uint32) & 0xFFFF0000).view(np.float32)

    theirs = {name: cut(array) for name, array in in_dtype(bundle.trace).items() if name.startswith("encoder")}
    assert nz.oracle.compare(bundle, theirs).dtype == "bfloat16"
    assert nz.oracle.compare(bundle, theirs, dtype="float32").dtype == "float32"
    assert nz.oracle.compare(bundle, in_dtype(bundle.trace)).dtype == "float32"


def bfloat16_values(array):
    return (np.asarray(array, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def test_what_a_float32_pass_looks_up_in_a_bfloat16_checkpoint_does_not_make_it_bfloat16():
    drawn = nz.init(CONFIG, "masked_lm")
    weights = nz.Weights({name: bfloat16_values(array) for name, array in drawn.items()}, CONFIG)
    bundle = nz.oracle.record(weights, IDS, token_type_ids=np.zeros_like(IDS))
    lookups = ("embeddings.word_embeddings", "embeddings.token_type_embeddings")
    theirs = {name: bundle.trace[name].astype(np.float32) for name in lookups}
    assert nz.oracle.compare(bundle, theirs).dtype_by == "bits"
    theirs["embeddings"] = (bundle.trace["embeddings"] * (1 + 1e-3)).astype(np.float32)
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison.dtype == "float32" and comparison.first.name == "embeddings"
    assert nz.oracle.compare(bundle, theirs, dtype="bfloat16")  # so much is rounding there


def test_a_pass_in_bfloat16_with_some_steps_in_float32_is_told_what_to_give(bundle):
    theirs = {name: bfloat16_values(array) for name, array in bundle.trace.items() if name.startswith("encoder")}
    theirs["embeddings"] = bundle.trace["embeddings"].astype(np.float32)
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison.dtype == "float32" and not comparison
    assert f"{comparison.in_bfloat16} of them hold numbers of bfloat16 alone: dtype='bfloat16'" in comparison.summary()
    assert nz.oracle.compare(bundle, theirs, dtype="bfloat16")


def test_of_dtypes_that_as_many_arrays_have_the_widest_counts(bundle):
    first, second = (bundle.trace[f"encoder.layer.{layer}"] for layer in (0, 1))
    for narrow, wide in (("float16", "float32"), ("float32", "float64"), ("float16", "float64")):
        theirs = {"encoder.layer.0": first.astype(narrow), "encoder.layer.1": second.astype(wide)}
        assert nz.oracle.compare(bundle, theirs).dtype == wide


def test_single_numbers_and_masks_say_nothing_of_the_dtype_beside_others(bundle):
    mask, loss = np.maximum(bundle.trace["attention_mask"], np.finfo("float32").min), bundle.outputs["loss"]
    others = {"attention_mask": mask.astype(np.float32), "loss": np.array(loss)}
    theirs = {**others, "embeddings": bfloat16_values(bundle.trace["embeddings"])}
    assert nz.oracle.compare(bundle, theirs).dtype == "bfloat16"
    assert nz.oracle.compare(bundle, {"loss": np.array(loss)}).dtype == "float64"
    assert nz.oracle.compare(bundle, {"loss": bfloat16_values(loss)}).dtype == "float32"


def test_a_dtype_in_half_precision_that_was_not_given_is_said_to_be_a_guess(bundle):
    array = bundle.trace["embeddings"]
    halves, cut = {"embeddings": array.astype(np.float16)}, {"embeddings": bfloat16_values(array)}
    guess = "is a guess, by the bits of arrays in float32: dtype= says what it is"
    assert f"bfloat16 {guess}" in nz.oracle.compare(bundle, cut).summary()
    assert "float16 is a guess, because most arrays are in it" in nz.oracle.compare(bundle, halves).summary()
    assert nz.oracle.compare(bundle, cut).to_dict()["dtype_by"] == "bits"
    for known in (
        nz.oracle.compare(bundle, cut, dtype="bfloat16"),
        nz.oracle.compare(bundle, cut, tolerance=1.0),
        nz.oracle.compare(bundle, in_dtype(bundle.trace)),
    ):
        assert "guess" not in known.summary()


def test_arrays_that_rounding_explains_are_marked_and_counted(bundle):
    name, bias = "gradients/encoder.layer.0.attention.self.q", "gradients/encoder.layer.0.attention.self.key.bias"
    bundle = dataclasses.replace(bundle, tolerances={dtype: dict(of) for dtype, of in bundle.tolerances.items()})
    largest = np.abs(bundle.arrays[name]).max()
    for tolerance, telling in ((0.49 * largest, True), (0.5 * largest, False), (np.inf, False)):
        bundle.tolerances["bfloat16"][name] = tolerance
        comparison = nz.oracle.compare(bundle, bundle, dtype="bfloat16")
        row = next(row for row in comparison.rows if row.name == name)
        (line,) = [line for line in comparison.table().splitlines() if line.split()[1] == name]
        assert comparison and row.telling is telling and line[0] == ("✓" if telling else "~")
        assert next(one for one in comparison.to_dict()["rows"] if one["name"] == name)["telling"] is telling
        little = sum(not row.telling for row in comparison.rows)
        said = f"{little} arrays say" if little > 1 else "1 array says"
        assert not little or f"{said} little in bfloat16: rounding explains half of" in comparison.summary()
        assert next(row for row in comparison.rows if row.name == bias).telling  # it is 0, and theirs is too
    (row,) = nz.oracle.compare(bundle, {name: bundle.arrays[name] + 10 * largest}, tolerance=1.0).rows
    assert not row.agrees and not row.telling
    assert nz.oracle.compare(bundle, {name: -bundle.arrays[name]}, tolerance=3.0).table().splitlines()[1][0] == "~"


def test_numbers_that_are_the_same_in_every_dtype_count_as_float32(bundle):
    halves = np.full_like(bundle.trace["embeddings"], 0.5, dtype=np.float32)
    assert nz.oracle.compare(bundle, {"embeddings": halves}).dtype == "float32"


def test_another_librarys_bfloat16_is_taken(bundle):
    torch = pytest.importorskip("torch", reason="NumPy has no bfloat16; this is PyTorch's")
    theirs = {"embeddings": torch.tensor(bundle.trace["embeddings"], dtype=torch.bfloat16)}
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison and comparison.dtype == "bfloat16"


def test_a_tolerance_of_ones_own_is_relative_to_the_largest_number(bundle):
    array = bundle.trace["embeddings"].astype(np.float32)
    moved = array + np.float32(1e-3 * np.abs(array).max())
    assert nz.oracle.compare(bundle, {"embeddings": moved}, tolerance=1.1e-3)
    comparison = nz.oracle.compare(bundle, {"embeddings": moved}, tolerance=0.9e-3)
    assert not comparison and "1 of 1 arrays is beyond 0.0009 of the largest" in comparison.summary()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tolerance": -1.0}, ValueError, "tolerance: expected a number from 0 on, got -1.0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance: expected a number from 0 on, got nan"),
        ({"tolerance": "small"}, TypeError, "tolerance: expected a number or None, got str"),
        ({"dtype": "float8"}, ValueError, "dtype: expected one of float64, float32, .*, got 'float8'"),
        ({"rename": ["a"]}, TypeError, "rename: expected a mapping from their names to ours, got list"),
        ({"rename": {"a": 1}}, TypeError, "rename: expected a mapping from their names to ours, got 'a' for 1"),
        ({"rename": {"a": "b.*"}}, ValueError, r"rename: expected a \* in 'a' for each in 'b.\*', got 0 for 1"),
    ],
)
def test_a_wrong_option_is_named(bundle, options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        nz.oracle.compare(bundle, {"embeddings": bundle.trace["embeddings"]}, **options)


# ------------------------------------------------------------------------------------------------- files and functions


def test_a_file_of_numpys_and_one_of_safetensors_are_read(bundle, tmp_path):
    from safetensors.numpy import save_file

    np.savez(tmp_path / "theirs.npz", **in_dtype(bundle.trace))
    rows = {name: np.array(array, order="C") for name, array in in_dtype(bundle.trace).items()}  # it writes no others
    save_file(rows, tmp_path / "theirs.safetensors")
    for name in ("theirs.npz", "theirs.safetensors"):
        comparison = nz.oracle.compare(bundle, tmp_path / name)
        assert comparison and comparison.dtype == "float32" and len(comparison.rows) == len(bundle.trace)


@pytest.mark.exhaustive
def test_another_bundle_or_its_file_stands_for_its_arrays(bundle, tmp_path):
    weights = bundle.weights()
    narrow = nz.oracle.record(
        weights, **bundle.inputs, head="masked_lm", dtype="float32", path=tmp_path / "b.safetensors"
    )
    for theirs in (narrow, tmp_path / "b.safetensors", str(tmp_path / "b.safetensors")):
        comparison = nz.oracle.compare(bundle, theirs)
        assert comparison and comparison.dtype == "float32" and comparison.unknown == comparison.missing == ()
        assert list(align(bundle, theirs).arrays) == list(bundle.arrays)
        assert nz.oracle.diagnose(bundle, theirs).step is None


def test_a_file_in_bfloat16_is_held_to_its_tolerances(bundle, tmp_path):
    torch = pytest.importorskip("torch", reason="it writes bfloat16")
    from safetensors.torch import save_file

    theirs = {name: torch.tensor(array, dtype=torch.bfloat16) for name, array in bundle.trace.items()}
    save_file({name: tensor.contiguous() for name, tensor in theirs.items()}, tmp_path / "theirs.safetensors")
    assert nz.oracle.compare(bundle, tmp_path / "theirs.safetensors").dtype == "bfloat16"


def test_a_file_that_is_missing_or_of_another_kind_is_named(bundle, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^theirs: expected a file of arrays, found no .*theirs.npz$"):
        nz.oracle.compare(bundle, tmp_path / "theirs.npz")
    with pytest.raises(ValueError, match=r"^theirs: expected a .safetensors or a .npz file, got .*theirs.json$"):
        nz.oracle.compare(bundle, tmp_path / "theirs.json")


def test_a_function_gets_the_inputs_by_keyword_and_cannot_change_the_bundle(bundle):
    seen = {}

    def port(input_ids, attention_mask, labels):
        seen.update(input_ids=input_ids.copy())
        input_ids[:] = 0
        return {"embeddings": bundle.trace["embeddings"]}

    assert nz.oracle.compare(bundle, port)
    assert (seen["input_ids"] == IDS).all() and (bundle.inputs["input_ids"] == IDS).all()


def test_a_function_may_return_tuples_of_arrays_and_none(bundle):
    bundle = nz.oracle.record(CONFIG, IDS, output_hidden_states=True)
    hidden_states = tuple(bundle.outputs[f"hidden_states.{index}"] for index in range(3))
    comparison = nz.oracle.compare(bundle, lambda **inputs: {"hidden_states": hidden_states, "attentions": None})
    assert [row.name for row in comparison.rows] == [f"outputs/hidden_states.{index}" for index in range(3)]


def test_a_function_may_return_the_path_of_a_file(bundle, tmp_path):
    path = tmp_path / "theirs.npz"
    np.savez(path, embeddings=bundle.trace["embeddings"])
    assert [row.name for row in nz.oracle.compare(bundle, lambda **inputs: path).rows] == ["embeddings"]


def copy_of_some(golden, written):
    """Play a port in a process of its own: it reads the bundle's file, and writes a file of some arrays."""
    read = nz.oracle.load(golden)
    safetensors.numpy.save_file({"embeddings": read.trace["embeddings"]}, written)


def test_with_files_a_function_gets_the_bundles_file_and_writes_one(bundle, tmp_path):
    assert [row.name for row in nz.oracle.compare(bundle, copy_of_some, files=True).rows] == ["embeddings"]
    path = tmp_path / "golden.safetensors"
    bundle.save(path)
    seen = []
    assert nz.oracle.compare(path, lambda golden, written: (seen.append(golden), str(path))[1], files=True)
    assert seen == [path]  # the bundle's own file, and no copy


def test_with_files_what_is_no_function_and_what_is_no_file_is_refused(bundle, tmp_path):
    with pytest.raises(TypeError, match=r"^theirs: expected a function of two paths, because files=True, got dict$"):
        nz.oracle.compare(bundle, {}, files=True)
    with pytest.raises(
        FileNotFoundError, match=r"^theirs: expected a function that writes its arrays to a file, found no"
    ):
        nz.oracle.compare(bundle, lambda golden, written: None, files=True)
    with pytest.raises(TypeError, match=r"^theirs: expected a function that returns a path or None, got dict$"):
        nz.oracle.compare(bundle, lambda golden, written: {}, files=True)


def test_what_a_function_raises_goes_through_and_what_it_returns_is_checked(bundle):
    def broken(**inputs):
        raise ZeroDivisionError("theirs")

    with pytest.raises(ZeroDivisionError, match=r"^theirs$"):
        nz.oracle.compare(bundle, broken)
    message = r"^theirs: expected a function that returns a mapping of arrays or a path, got NoneType$"
    with pytest.raises(TypeError, match=message):
        nz.oracle.compare(bundle, lambda **inputs: None)


# ----------------------------------------------------------------------------------------------------- what is said


def test_the_first_difference_is_the_first_in_the_order_of_the_pass(bundle):
    wrong = {name: array + 1 for name, array in bundle.trace.items() if "layer.1" in name or name == "loss"}
    theirs = {**dict(reversed(wrong.items())), "embeddings": bundle.trace["embeddings"]}
    comparison = nz.oracle.compare(bundle, theirs)
    assert comparison.first.name == next(iter(wrong))
    assert f"{len(wrong)} of {len(wrong) + 1} arrays are beyond the tolerances of float64" in comparison.summary()


def test_a_row_says_by_how_much_and_where(bundle):
    array = bundle.trace["embeddings"].copy()
    array[1, 3, 7] += 0.5
    row = nz.oracle.compare(bundle, {"nezha.embeddings": array}).first
    assert row.where == (1, 3, 7) and row.absolute == pytest.approx(0.5)
    assert row.relative == pytest.approx(0.5 / np.abs(bundle.trace["embeddings"]).max())
    assert row.theirs - row.golden == pytest.approx(0.5) and row.their_name == "nezha.embeddings"


def test_the_table_has_a_line_for_each_array(bundle):
    theirs = {**in_dtype(bundle.trace), Q: np.zeros((2, 2, 4, 4), "float32"), "embeddings": np.float32(0)}
    table = nz.oracle.compare(bundle, theirs).table().splitlines()
    assert table[0].split() == ["name", "shape", "absolute", "relative", "tolerance", "where"]
    assert len(table) == 1 + len(bundle.trace)
    assert sum(line.startswith("✗") for line in table) == 2
    assert any(line.split()[:2] == ["✗", "embeddings"] and line.endswith("2 × 4 × 8, not ()") for line in table)


def test_the_dictionary_is_json_without_nan(bundle):
    array = bundle.trace["embeddings"].copy()
    array[0, 0, 0] = np.nan
    theirs = {"embeddings": array, Q: np.zeros(3), "loss": bundle.outputs["loss"]}
    written = json.dumps(nz.oracle.compare(bundle, theirs).to_dict(), allow_nan=False)
    read = json.loads(written)
    assert read["first"] == "embeddings" and not read["agrees"] and read["dtype"] == "float64"
    rows = {row["name"]: row for row in read["rows"]}
    assert rows["embeddings"]["absolute"] is None and rows["embeddings"]["where"] == [0, 0, 0]
    assert rows[Q]["their_shape"] == [3] and rows["loss"]["agrees"]


def test_the_mask_of_the_bundle_is_the_one_that_the_model_adds(bundle):
    expected = additive_mask.definition(np.zeros(1), MASK, queries=4, keys=4, causal=False)
    assert (bundle.trace["attention_mask"] == expected).all()


def test_the_gradient_of_an_output_is_that_of_the_intermediate_that_it_is(bundle):
    logits = next(name for name, array in bundle.trace.items() if array is bundle.outputs["logits"])
    comparison = nz.oracle.compare(bundle, {"gradients/logits": bundle.gradients[logits]})
    assert comparison and comparison.rows[0].their_name == "gradients/logits"
