"""The transformer keeps the rules of scikit-learn.

`check_estimator` has only matrices of numbers to give: for an estimator that takes texts it skips all of its checks but
one, that it can be cloned. So all of them run here over `Rows`, the same transformer reading each row of a matrix as a
text. None is excluded.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toy import WordEncoder

from semsearch.encoding import get_encoder
from semsearch.errors import InputError

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from semsearch.integrations.sklearn import SentenceEncoder

MONEY = ["Late fees are charged.", "Fees for lost books.", "A fine of two pounds.", "What does a copy cost?"]
TIME = ["The room closes at nine.", "Open until noon on Monday.", "Hours in winter.", "At what time does it close?"]
TEXTS = [*MONEY, *TIME]
LABELS = ["money"] * 4 + ["time"] * 4


class Numbers:
    """A vector for a text of numbers, of unit length: what the checks need is that equal rows have equal vectors."""

    name, dimension = "numbers", 3

    def encode(self, texts: Sequence[str], *, kind: str = "passage") -> np.ndarray:
        rows = [[1.0, float(np.sum([float(each) for each in text.split()])), len(text.split())] for text in texts]
        made = np.asarray(rows, np.float32).reshape(-1, 3)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


class Rows(SentenceEncoder):
    """The transformer over matrices: a row of numbers is the text of these numbers."""

    def __init__(self, encoder: Any = None, *, kind: Any = "passage") -> None:
        super().__init__(encoder, kind=kind)

    def fit(self, X: Any, y: Any = None) -> Rows:  # noqa: N803
        return super().fit(self._rows(X, reset=True))

    def transform(self, X: Any) -> np.ndarray:  # noqa: N803
        check_is_fitted(self, "dimension_")
        return super().transform(self._rows(X, reset=False))

    def _rows(self, matrix: Any, *, reset: bool) -> list[str]:
        return [" ".join(map(repr, map(float, row))) for row in validate_data(self, matrix, reset=reset)]

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "dimension_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        tags.input_tags.string = False
        tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = True
        return tags


@parametrize_with_checks([Rows(Numbers())])
def test_the_checks_of_scikit_learn_hold(estimator: Any, check: Any) -> None:
    check(estimator)


def test_what_scikit_learn_checks_of_an_estimator_for_texts_holds() -> None:
    with pytest.warns(SkipTestWarning, match="Can't test estimator SentenceEncoder"):
        done = check_estimator(SentenceEncoder())
    assert [(each["check_name"], each["status"]) for each in done] == [("check_estimator_cloneable", "passed")]


def test_vectors_are_those_of_the_encoder() -> None:
    encoder = get_encoder(None)
    vectors = SentenceEncoder().fit_transform(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (8, 384)
    assert np.array_equal(vectors, encoder.encode(TEXTS))
    queries = SentenceEncoder(kind="query").fit(TEXTS).transform(TEXTS[:1])
    assert np.array_equal(queries, encoder.encode(TEXTS[:1], kind="query"))


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, lambda texts: np.array(texts, dtype=object), iter])
def test_texts_come_as_any_sequence(kind: Any) -> None:
    assert SentenceEncoder(WordEncoder()).transform(kind(TEXTS)).shape == (8, 1024)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "a sequence of strings, not 'one text'"),
        (7, "a sequence of strings, not 7"),
        (["a", None], "Text 1 is not a string but None"),
        (["a", float("nan")], "Text 1 is not a string but nan"),
        ([b"bytes"], "Text 0 is not a string"),
        ([["a"], ["b"]], "Text 0 is not a string"),
        (np.array([["a"], ["b"]]), "Text 0 is not a string"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, message: str) -> None:
    encoder = SentenceEncoder(WordEncoder())
    with pytest.raises(InputError, match=message):
        encoder.fit(texts)
    with pytest.raises(InputError, match=message):
        encoder.transform(texts)


def test_bad_parameters_are_told_at_fit_not_at_construction() -> None:
    with pytest.raises(InputError, match="kind is 'passage' or 'query', not 'title'"):
        SentenceEncoder(kind="title").fit(TEXTS)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'int' object is not an encoder"):
        SentenceEncoder(384).fit(TEXTS)  # type: ignore[arg-type]


def test_columns_have_names_and_go_into_data_frames() -> None:
    encoder = SentenceEncoder(WordEncoder()).set_output(transform="pandas")
    frame = encoder.fit_transform(pd.Series(TEXTS, index=range(10, 18)))
    assert list(frame.columns) == [f"sentenceencoder{i}" for i in range(1024)]
    assert list(frame.columns) == list(encoder.get_feature_names_out())
    assert list(frame.index) == list(range(10, 18))


def test_it_is_pickled_and_cloned_without_weights() -> None:
    encoder = SentenceEncoder().fit(TEXTS)
    expected = encoder.transform(TEXTS)
    written = pickle.dumps(encoder)
    assert len(written) < 500
    assert np.array_equal(pickle.loads(written).transform(TEXTS), expected)  # noqa: S301
    copy = clone(encoder)
    assert copy.get_params() == {"encoder": None, "kind": "passage"}
    assert not hasattr(copy, "dimension_")


def test_set_params_changes_the_encoder() -> None:
    encoder = SentenceEncoder().fit(TEXTS)
    assert encoder.set_params(encoder=WordEncoder()).transform(TEXTS).shape == (8, 1024)
    assert encoder.set_params(encoder="all-MiniLM-L6-v2").transform(TEXTS).shape == (8, 384)


def test_a_pipeline_learns_and_a_grid_search_chooses() -> None:
    pipeline = make_pipeline(SentenceEncoder(), LogisticRegression())
    choices = {"sentenceencoder__kind": ["passage", "query"], "logisticregression__C": [1, 10]}
    grid = GridSearchCV(pipeline, choices, cv=2)
    grid.fit(TEXTS, LABELS)
    assert len(grid.cv_results_["params"]) == 4
    assert list(grid.predict(["How much is the fine?", "When does it open?"])) == ["money", "time"]


@pytest.mark.slow
def test_a_grid_search_runs_in_other_processes() -> None:
    pipeline = make_pipeline(SentenceEncoder(), LogisticRegression())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grid = GridSearchCV(pipeline, {"logisticregression__C": [1, 10]}, cv=2, n_jobs=2).fit(TEXTS, LABELS)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


def test_a_column_of_a_data_frame_is_encoded() -> None:
    frame = pd.DataFrame({"body": TEXTS, "year": range(8)})
    columns = ColumnTransformer([("text", SentenceEncoder(WordEncoder()), "body"), ("year", "passthrough", ["year"])])
    assert columns.fit_transform(frame).shape == (8, 1025)
    assert columns.get_feature_names_out()[[0, -1]].tolist() == ["text__sentenceencoder0", "year__year"]
