"""Pictures hold the numbers that they are drawn from, every letter of a document included, and change nothing else."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bert
from toy import WordEncoder

import semsearch
from semsearch import drawing, plots
from semsearch.comparing import Comparison, Difference
from semsearch.errors import InputError, MissingExtraError
from semsearch.evaluation import Evaluation
from semsearch.extraction import TransformersReader
from semsearch.metrics import risk_curve
from semsearch.projection import clusters, distinctive_words, principal_plane

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")

HOSTILE = [
    "$\\frac{",
    "_hidden",
    "東京都立図書館",
    "🦉 \u202eevil\x1b[31m",
    "a\nb\tc",
    "\ud800",
    "نمی\u200cخواهم",
    "$x$ & %",
]


def rendered(picture: Any) -> bytes:
    """The PNG that a notebook shows; warnings are errors here."""
    file = io.BytesIO()
    getattr(picture, "figure", picture).savefig(file, format="png")
    return file.getvalue()


def points(collection: Any) -> list[tuple[float, float]]:
    return [tuple(np.round(place, 6).tolist()) for place in np.asarray(collection.get_offsets())]


def legend_texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def extent(annotation: Any) -> Any:
    """The box of the words of an annotation, in pixels, without its line."""
    from matplotlib.text import Text

    return Text.get_window_extent(annotation)


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    """No picture changes a setting, or is known to pyplot."""
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


# -- projection --------------------------------------------------------------------------------------------------------


def test_the_plane_is_that_of_the_largest_variance() -> None:
    plane = principal_plane(np.array([[5.0, 1.0, 2.0], [1.0, 1.0, 2.0], [3.0, 1.0, 3.0], [3.0, 1.0, 1.0]]))
    assert plane.mean.tolist() == [3, 1, 2]
    assert plane.axes.round(9).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert plane.shares == pytest.approx((0.8, 0.2))  # sums of squares 8 and 2
    assert plane.project(np.array([[4.0, 9.0, 2.5]])).round(9).tolist() == [[1, 0.5]]


def test_the_sign_of_a_component_does_not_depend_on_the_order_of_the_rows() -> None:
    rows = np.random.default_rng(1).normal(size=(40, 6))
    one, other = principal_plane(rows), principal_plane(rows[::-1])
    np.testing.assert_allclose(one.axes, other.axes, atol=1e-9)
    assert (one.axes[np.arange(2), np.abs(one.axes).argmax(axis=1)] > 0).all()


def test_the_plane_agrees_with_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="scikit-learn is not installed")
    rows = np.random.default_rng(2).normal(size=(60, 8))
    reference = decomposition.PCA(2).fit(rows)
    plane = principal_plane(rows)
    np.testing.assert_allclose(plane.shares, reference.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(np.abs(plane.project(rows)), np.abs(reference.transform(rows)), atol=1e-6)


def test_equal_vectors_lie_on_one_point() -> None:
    plane = principal_plane(np.ones((3, 4)))
    assert plane.shares == (0, 0)
    assert np.abs(plane.project(np.ones((3, 4)))).max() < 1e-9


def test_clusters_are_found_again_and_numbered_by_size() -> None:
    random = np.random.default_rng(3)
    centres = np.eye(3, 8)
    sizes = [5, 20, 10]
    rows = np.concatenate([centres[n] + 0.05 * random.normal(size=(size, 8)) for n, size in enumerate(sizes)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    members = clusters(rows.astype(np.float32), 3)
    assert members.tolist() == [2] * 5 + [0] * 20 + [1] * 10
    assert clusters(rows.astype(np.float32), 3).tolist() == members.tolist()


def test_equal_vectors_are_one_cluster() -> None:
    assert clusters(np.tile(np.eye(1, 4, dtype=np.float32), (5, 1)), 3).tolist() == [0] * 5


def test_distinctive_words_by_hand() -> None:
    # fee: p 1, q (0 + 0.5)/(1 + 1), 1·log 4; late: p 0.5, q 1.5/2, below 0; book: p 0.5, q 0.25, 0.5·log 2.
    groups = [[["late", "fee"], ["fee", "book"]], [["late", "bus"]]]
    assert distinctive_words(groups) == [["fee", "book"], ["bus", "late"]]
    assert distinctive_words([[["a"]], [["a"]]]) == [["a"], ["a"]]  # one text says little: 1·log(1 / 0.75)


# -- the map -----------------------------------------------------------------------------------------------------------


class Given:
    """An encoder whose vectors are in the texts: "0.6 0.8 0 words"."""

    name = "given"
    dimension = 3

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        return np.array([[float(each) for each in text.split()[:3]] for text in texts], np.float32)


# Less their mean (0, 0, 0.4) they differ by 2 along x, 0.72 along y and 0.64 along z, in squares summed.
CROSS = ["1 0 0 east", "-1 0 0 west", "0 0.6 0.8 north", "0 -0.6 0.8 south"]


@pytest.fixture
def cross(tmp_path: Path) -> Iterator[semsearch.Index]:
    with semsearch.Index(tmp_path / "index", encoder=Given()) as index:
        for number, text in enumerate(CROSS):
            metadata = {"kind": "pole" if number > 1 else "_$side", "year": 2000 + number, "deep": {"er": number % 2}}
            index.add([semsearch.Document(f"{text.split()[-1]}.md", text, metadata=metadata)])
        yield index


def test_passages_lie_where_the_components_put_them(cross: semsearch.Index) -> None:
    axes = cross.plot(color="kind")
    side, pole = axes.collections
    assert points(side) == [(1, 0), (-1, 0)]
    assert points(pole) == [(0, 0.6), (0, -0.6)]
    assert axes.get_xlabel() == "first principal component (60% of the variance)"  # 2 / 3.36
    assert axes.get_ylabel() == "second (21%)"  # 0.72 / 3.36
    assert axes.get_title() == "4 passages"
    assert legend_texts(axes) == ["_$side (2)", "pole (2)"]
    assert rendered(axes).startswith(b"\x89PNG")


def test_the_query_is_a_star_and_its_hits_are_ringed_and_numbered(cross: semsearch.Index) -> None:
    axes = cross.plot(color="kind", query="0.8 0.6 0 east", k=2)
    rings, star = axes.collections[2:4]
    assert points(star) == [(0.8, 0.6)]
    hits = cross.search("0.8 0.6 0 east", k=2)
    places = {"east.md": (1, 0), "west.md": (-1, 0), "north.md": (0, 0.6), "south.md": (0, -0.6)}
    assert points(rings) == [places[hit.passage.document_id] for hit in hits]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]
    assert legend_texts(axes)[2:] == [
        "“0.8 0.6 0 east”",
        *(f"hit {hit.rank}: {hit.passage.document_id}" for hit in hits),
    ]


def test_numbers_of_near_hits_do_not_lie_on_each_other(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=Given()) as index:
        near = [(f"n{n}", f"{np.cos(n / 500):.6f} {np.sin(n / 500):.6f} 0 near") for n in range(12)]
        index.add([*near, ("far", "0 0 1 far"), ("other", "-1 0 0 other")])
        axes = index.plot(query="1 0 0 near", k=12)
    axes.figure.draw_without_rendering()
    boxes = [extent(text) for text in axes.texts]
    assert len(boxes) == 12
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_a_number_with_many_values_is_a_scale(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=Given()) as index:
        for n in range(12):
            angle = n / 4
            text = f"{np.cos(angle):.6f} {np.sin(angle):.6f} 0 word"
            index.add([semsearch.Document(str(n), text, metadata={"size": 10 * n} if n != 5 else {})])
        axes = index.plot(color="size")
        missing, known = axes.collections
        assert known.get_array().tolist() == [10 * n for n in range(12) if n != 5]
        assert len(points(missing)) == 1
        assert axes.figure.axes[1].get_ylabel() == "size"
        assert len(points(index.plot(color="size", sample=6).collections[0])) <= 6


def test_metadata_is_named_as_in_filters(cross: semsearch.Index) -> None:
    assert legend_texts(cross.plot(color="deep.er")) == ["0 (2)", "1 (2)"]
    assert legend_texts(cross.plot(color="document_id"))[0] == "east.md (1)"
    with pytest.raises(InputError, match=r"No passage has the metadata 'colour' to colour by. There is .*kind, .*year"):
        cross.plot(color="colour")


def test_more_values_than_colours_share_a_grey(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=Given()) as index:
        for n in range(15):
            text = f"{np.cos(n / 5):.6f} {np.sin(n / 5):.6f} 0 word"
            index.add([semsearch.Document(f"{n}", text, metadata={"tag": f"t{min(n, 13):02}"})])
        names = legend_texts(index.plot(color="tag"))
    assert names[0] == "t13 (2)"
    assert len(names) == 12
    assert names[-1] == "3 other values (3)"


def test_clusters_are_named_by_their_words(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add((f"f{n}", f"late fees are charged from week {n}") for n in range(4))
        index.add((f"r{n}", f"rooms can be booked for meetings on day {n}") for n in range(5))
        names = legend_texts(index.plot())
    assert [name.split(" (")[1] for name in names] == ["5)", "4)"]
    assert set(names[0].split(" (")[0].split(", ")) <= {"rooms", "booked", "meetings", "day"}
    assert set(names[1].split(" (")[0].split(", ")) <= {"late", "fees", "charged", "week"}


def test_a_map_of_a_part_and_of_too_little(cross: semsearch.Index, tmp_path: Path) -> None:
    assert cross.plot(where={"year": {"$gte": 2001}}).get_title() == "3 passages"
    assert cross.plot(sample=3).get_title() == "3 of 4 passages"
    with pytest.raises(InputError, match="has 2 passages with vectors that match the filter; a map needs at least 3"):
        cross.plot(where={"kind": "pole"})
    with pytest.raises(InputError, match="sample=2"):
        cross.plot(sample=2)
    with (
        semsearch.Index(tmp_path / "empty", encoder=Given()) as index,
        pytest.raises(InputError, match="has 0 passages"),
    ):
        index.plot()


def test_hostile_words_are_drawn_as_they_are(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=Given()) as index:
        for n, word in enumerate(HOSTILE):
            text = f"{np.cos(n):.6f} {np.sin(n):.6f} 0 {word}"
            index.add([semsearch.Document(f"{n}{word}", text, metadata={"tag": word})])
        for picture in (index.plot(color="tag", query="1 0 0 $\\frac _x 東京"), index.plot()):
            assert rendered(picture)
        names = legend_texts(index.plot(color="tag"))
    assert {"$\\frac{ (1)", "_hidden (1)", "a b c (1)", "$x$ & % (1)"} <= set(names)


# -- letters -----------------------------------------------------------------------------------------------------------


def test_letters_that_no_font_has_become_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_installed", dict)
    text = drawing.new_axes((2, 2)).title
    drawing.write(text, "fees 東京 e\u0301 $5")
    assert text.get_text() == "fees □□ e\u0301 $5"
    assert not text.get_parse_math()
    assert rendered(text)


def test_another_font_that_has_the_letters_is_used() -> None:
    from matplotlib.font_manager import findfont

    own = drawing._letters(drawing._default_font(tuple(matplotlib.rcParams["font.family"])))
    letter = min(drawing._letters(findfont("STIXGeneral")).keys() - own.keys())
    text = drawing.new_axes((2, 2)).title
    drawing.write(text, f"a{letter}")
    assert text.get_text() == f"a{letter}"
    assert text.get_fontfamily()[0] == matplotlib.rcParams["font.family"][0]
    assert len(text.get_fontfamily()) == 2
    assert rendered(text)


# -- tokens ------------------------------------------------------------------------------------------------------------


def test_the_heat_map_has_the_similarities_and_the_nearest_tokens() -> None:
    cosines = np.array([[0.1, 0.9, -0.2], [0.7, 0.3, 0.2]])
    axes = plots.token_similarity(["late", "fee"], ["a", "late", "$"], cosines)
    (image,) = axes.get_images()
    assert image.get_array().tolist() == [[0.1, 0.9, 0.0], [0.7, 0.3, 0.2]]
    assert points(axes.collections[0]) == [(1, 0), (0, 1)]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "late", "$"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["late", "fee"]
    assert axes.get_xlabel() == "passage"
    assert rendered(plots.token_similarity(HOSTILE, HOSTILE, np.eye(len(HOSTILE))))


def test_of_a_long_passage_the_stretch_that_is_most_like_the_query_is_drawn() -> None:
    cosines = np.zeros((1, 10))
    cosines[0, [1, 6, 8]] = 0.5, 0.4, 0.4
    axes = plots.token_similarity(["fee"], [f"t{n}" for n in range(10)], cosines, most=3)
    assert axes.get_xlabel() == "passage, tokens 7 to 9 of 10"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["t6", "t7", "t8"]
    with pytest.raises(InputError, match="most=0"):
        plots.token_similarity(["fee"], ["a"], np.ones((1, 1)), most=0)
    with pytest.raises(InputError, match="0 query tokens"):
        plots.token_similarity([], ["a"], np.ones((0, 1)))


def test_a_hit_draws_the_cosines_of_the_encoders_token_vectors(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index") as index:
        index.add([("fees", "Late fees are twenty cents a day.")])
        hit = index.search("late fee", k=1)[0]
        axes = hit.plot()
        (asked, rows), (_, columns) = index.encoder.token_vectors(["late fee", hit.passage.text])
    assert len(asked) == 2
    np.testing.assert_allclose(axes.get_images()[0].get_array(), np.maximum(rows @ columns.T, 0), atol=1e-6)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["late", "fee"]
    assert axes.get_xticklabels()[0].get_text() == "Late"


def test_a_hit_without_token_vectors_says_so(tmp_path: Path) -> None:
    with semsearch.Index(tmp_path / "index", encoder=WordEncoder()) as index:
        index.add([("fees", "late fees")])
        with pytest.raises(InputError, match=r"no token_vectors\(\)"):
            index.search("fees", k=1)[0].plot()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TransformersReader:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return TransformersReader(tiny_bert.reader(tmp_path_factory.mktemp("reader")))


QUESTION, PASSAGE = "when are fees charged ?", "late fees are charged . the library"


def test_attention_is_that_of_the_model(reader: TransformersReader) -> None:
    import torch
    from transformers import AutoModelForQuestionAnswering

    known = reader.attention(QUESTION, PASSAGE)
    assert known.tokens[:4] == ["[CLS]", "when", "are", "fee"]
    text = [token for token, part in zip(known.tokens, known.part, strict=True) if part == 1]
    assert "".join(text) == PASSAGE.replace(" ", "")
    assert known.part[0] == known.part[-1] == -1
    model = AutoModelForQuestionAnswering.from_pretrained(reader.name, attn_implementation="eager")
    (window,) = reader._windows.cut(QUESTION, [PASSAGE])
    with torch.inference_mode():
        output = model(
            input_ids=torch.from_numpy(window.ids)[None],
            token_type_ids=torch.from_numpy(window.types)[None],
            output_attentions=True,
        )
    expected = np.stack([layer[0].numpy() for layer in output.attentions])
    assert known.weights.shape == (2, 4, len(known.tokens), len(known.tokens))
    np.testing.assert_allclose(known.weights, expected, atol=1e-5)
    np.testing.assert_allclose(known.weights.sum(axis=-1), 1, atol=1e-5)


def test_attention_leaves_the_reader_as_it_was(reader: TransformersReader) -> None:
    before = reader._model.config._attn_implementation, reader.read(QUESTION, [PASSAGE])
    reader.attention(QUESTION, PASSAGE)
    assert (reader._model.config._attn_implementation, reader.read(QUESTION, [PASSAGE])) == before


def test_the_picture_of_attention_has_its_weights(reader: TransformersReader) -> None:
    known = reader.attention(QUESTION, PASSAGE)
    axes = plots.attention(reader, QUESTION, PASSAGE, layer=0, head=-1)
    (image,) = axes.get_images()
    np.testing.assert_allclose(image.get_array(), known.weights[0, 3], atol=1e-6)
    assert axes.get_title() == "layer 0, head 3"
    assert [label.get_text() for label in axes.get_xticklabels()] == known.tokens
    mean = plots.attention(semsearch.Answerer(None, reader=reader), QUESTION, PASSAGE)
    np.testing.assert_allclose(mean.get_images()[0].get_array(), known.weights[1].mean(axis=0), atol=1e-6)
    assert mean.get_title() == "layer 1, mean of its heads"
    few = plots.attention(reader, QUESTION, PASSAGE, most=2).get_images()[0].get_array()
    assert few.shape == (int((known.part != 1).sum()) + 2,) * 2
    assert rendered(axes)


@pytest.mark.parametrize(("name", "value", "count"), [("layer", 2, 2), ("head", -5, 4), ("head", True, 4)])
def test_a_layer_or_head_that_there_is_not(reader: TransformersReader, name: str, value: int, count: int) -> None:
    with pytest.raises(InputError, match=f"There is no {name} {value}: the reader has {count}, 0 to {count - 1}"):
        plots.attention(reader, QUESTION, PASSAGE, **{name: value})


def test_the_compiled_reader_cannot_tell_its_attention() -> None:
    with pytest.raises(InputError, match="does not give its attention: a compiled one has answers only"):
        plots.attention(semsearch.Answerer(None), QUESTION, PASSAGE)


# -- how sure ----------------------------------------------------------------------------------------------------------

STATED, RIGHT = [0.9, 0.2, 0.6, 0.6], [1, 0, 1, 0]


def test_risk_and_coverage_by_hand() -> None:
    # 0.9 right: 0 of 1 wrong; with both of 0.6 1 of 3; with all 2 of 4.
    axes = plots.risk_coverage({"$mine": (STATED, RIGHT)})
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[25, 0], [75, 100 / 3], [100, 50]])
    # 0.25·0 + 0.5·1/3 + 0.25·1/2
    assert legend_texts(axes) == ["$mine: area 0.292, 4 questions"]
    assert rendered(axes)
    assert risk_curve([0.5, 0.5], [0, 1])[2] == 0.5
    with pytest.raises(InputError, match="1 probabilities and 0 outcomes"):
        risk_curve([0.5], [])


def test_calibration_by_hand() -> None:
    axes = plots.calibration({"mine": (STATED, RIGHT)}, bins=2)
    line = axes.get_lines()[1]
    np.testing.assert_allclose(line.get_xydata(), [[40, 50], [75, 50]])  # 0.2, 0.6: one of two; 0.6, 0.9: one of two
    # Four bins of one, those of equal probability sharing their outcome: (0.2 + 0.1 + 0.1 + 0.1) / 4
    assert legend_texts(axes) == ["mine: ece 0.125, 4 questions"]
    assert rendered(axes)


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert plots._wilson(0.9, 10) == pytest.approx((0.59585, 0.98212), abs=1e-5)  # 9 of 10
    assert plots._wilson(0.0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)


def test_what_evaluate_gives_can_be_drawn() -> None:
    class Sure:
        name = "sure"

        def answer(self, question: str) -> semsearch.Answer:
            return semsearch.Answer("nine", 0.75 if "open" in question else 0.5)

    questions = [("When does it open?", ["nine"]), ("When does it close?", ["ten"])]
    result = semsearch.evaluate(Sure(), questions)
    assert sorted(result.stated.values()) == [(0.5, False), (0.75, True)]
    assert legend_texts(plots.risk_coverage([result, result])) == [
        "sure: area 0.250, 2 questions",
        "sure (2): area 0.250, 2 questions",
    ]
    assert legend_texts(plots.calibration(result)) == ["sure: ece 0.375, 2 questions"]


def test_nothing_judged_is_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="'mine' has 0 probabilities and 0 outcomes"):
        plots.risk_coverage({"mine": ([], [])})
    for nothing in ({}, []):
        with pytest.raises(InputError, match="nothing to draw"):
            plots.risk_coverage(nothing)
    with pytest.raises(InputError, match="bins=0"):
        plots.calibration({"mine": (STATED, RIGHT)}, bins=0)


# -- systems -----------------------------------------------------------------------------------------------------------


def evaluation(name: str, value: float, milliseconds: float) -> Evaluation:
    return Evaluation(name, "toy", 3, {"ndcg@10": value}, {"ndcg@10": {}}, milliseconds, milliseconds)


@pytest.fixture
def compared() -> Comparison:
    evaluations = (evaluation("$a", 0.5, 1.0), evaluation("_b", 0.75, 20.0))
    difference = Difference("$a", "_b", -0.25, 0.01, -0.375, -0.125)
    return Comparison("toy", "ndcg@10", evaluations, (difference,), "_b", "_b", "_b: it is better.")


def test_the_comparison_shows_means_and_intervals(compared: Comparison) -> None:
    axes = plots.comparison(compared)
    dashed, worse, better = axes.get_lines()
    assert dashed.get_xdata() == [0.75, 0.75]
    assert (worse.get_xydata().tolist(), better.get_xydata().tolist()) == ([[0.5, 0]], [[0.75, 1]])
    (bar,) = axes.collections
    assert bar.get_segments()[0].tolist() == [[0.375, 0], [0.625, 0]]  # 0.75 - 0.375 and 0.75 - 0.125
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$a", "_b"]
    assert worse.get_color() != better.get_color()
    assert worse.get_marker() != better.get_marker()


def test_the_figure_of_a_comparison_has_the_times(compared: Comparison) -> None:
    figure = compared.plot()
    cost = figure.axes[1]
    assert [bar.get_width() for bar in cost.patches] == [1.0, 20.0]
    assert [text.get_text() for text in cost.texts] == ["1", "20"]
    assert figure.get_suptitle() == "toy, 3 questions: take _b"
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_growth_has_its_points_a_guide_and_labels_apart() -> None:
    curves = {"one": {10: 1.0, 1000: 2.0}, "$two": {100: 1.0, 1000: 2.02, 10: 0.9}}
    axes = plots.growth(curves, y="ms")
    one, two, guide = axes.get_lines()
    assert one.get_xydata().tolist() == [[10, 1.0], [1000, 2.0]]
    assert two.get_xydata().tolist() == [[10, 0.9], [100, 1.0], [1000, 2.02]]
    # As steep as the size, and 0.6 of the lowest cost when that is brought to the smallest size: 2.0·10/1000.
    np.testing.assert_allclose(guide.get_xydata(), [[10, 0.012], [1000, 1.2]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "100", "1,000"]
    axes.figure.draw_without_rendering()
    assert [text.get_text() for text in axes.texts] == ["one", "$two", "in proportion"]
    boxes = [extent(text) for text in axes.texts]
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
    assert rendered(axes)


@pytest.mark.parametrize("curves", [{}, {"none": {}}, {"free": {10: 0.0}}])
def test_growth_needs_values_above_0(curves: dict[str, dict[float, float]]) -> None:
    with pytest.raises(InputError, match=r"no curve|Give values above 0"):
        plots.growth(curves)


# -- all of them -------------------------------------------------------------------------------------------------------


def everything(compared: Comparison, index: semsearch.Index, ax: Any = None) -> Iterator[Any]:
    yield index.plot(query="1 0 0 east", ax=ax)
    yield plots.token_similarity(["a"], ["b"], np.ones((1, 1)), ax=ax)
    yield plots.risk_coverage({"mine": (STATED, RIGHT)}, ax=ax)
    yield plots.calibration({"mine": (STATED, RIGHT)}, ax=ax)
    yield plots.comparison(compared, ax=ax)
    yield plots.growth({"one": {1: 1.0, 2: 2.0}}, ax=ax)


def test_each_draws_on_the_axes_that_it_is_given(compared: Comparison, cross: semsearch.Index) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    for drawn in everything(compared, cross, axes):
        assert drawn is axes
        axes.clear()


def test_a_notebook_shows_each_without_pyplot(compared: Comparison, cross: semsearch.Index) -> None:
    for axes in everything(compared, cross):
        assert axes._repr_png_().startswith(b"\x89PNG")


def test_the_style_in_use_holds(cross: semsearch.Index) -> None:
    with matplotlib.rc_context({"text.color": "white", "axes.facecolor": "black", "figure.facecolor": "black"}):
        axes = cross.plot(query="1 0 0 east", k=2)
        assert axes.get_facecolor()[:3] == (0, 0, 0)
        assert {text.get_color() for text in axes.get_legend().get_texts()} == {"white"}
        rings = axes.collections[-2 if len(axes.collections) < 4 else -3]
        assert rings.get_edgecolors()[0].tolist() == [1, 1, 1, 1]


# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour: str, matrix: Any) -> np.ndarray:
    """CIELAB (D65) of a colour as somebody with a deficiency sees it."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    f = np.where(f > 6 / 29, f, xyz / np.array([0.9505, 1.0, 1.089]) * 841 / 108 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_can_be_told_apart_with_any_colour_vision(deficiency: str) -> None:
    seen = [lab(colour, DEFICIENCIES[deficiency]) for colour in drawing.PALETTE]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 10  # 2.3 is just noticeable


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'semsearch\[plot\]'"):
        plots.growth({"one": {1: 1.0}})
