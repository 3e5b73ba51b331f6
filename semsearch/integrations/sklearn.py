# mypy: disallow-subclassing-any=False
"""semsearch in scikit-learn: a transformer from texts to vectors, for pipelines, grid searches and column transformers.

    from semsearch.integrations.sklearn import SentenceEncoder

    model = make_pipeline(SentenceEncoder(), LogisticRegression())
    model.fit(["Late fees are charged.", "The reading room closes at nine."], ["money", "time"])

Needs scikit-learn: pip install 'semsearch[sklearn]'.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from semsearch.encoding import Encoder, Kind, get_encoder
from semsearch.errors import InputError, MissingExtraError
from semsearch.filters import shown

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError as error:
    raise MissingExtraError("The adapter for scikit-learn", "scikit-learn", "sklearn") from error

__all__ = ["SentenceEncoder"]


class SentenceEncoder(TransformerMixin, BaseEstimator):
    """Texts in, unit vectors out: (n,) strings become (n, dimension) float32.

    `encoder` is whatever `semsearch.Index` takes: None for the one that ships, a name, a folder or an object. `kind` is
    "passage" or "query", for encoders that read questions and texts differently.

    Nothing is learned: `fit` looks at the texts and the parameters, and `transform` works without it. The model is
    loaded when it is first used and never pickled, only its name is; an object of your own is pickled as it is. For a
    column of a data frame, name it: `ColumnTransformer([("text", SentenceEncoder(), "body")])`.
    """

    def __init__(self, encoder: str | os.PathLike[str] | Encoder | None = None, *, kind: Kind = "passage") -> None:
        self.encoder = encoder
        self.kind = kind

    def fit(self, X: Iterable[str], y: Any = None) -> SentenceEncoder:  # noqa: N803
        """Look at the texts and load the encoder. Raises InputError for what are no texts, ModelError for no model."""
        _texts(X)
        self.dimension_: int = self._loaded().dimension
        return self

    def transform(self, X: Iterable[str]) -> npt.NDArray[np.float32]:  # noqa: N803
        """(n, dimension) float32, rows of unit length. Raises InputError for what are no texts."""
        return self._loaded().encode(_texts(X), kind=self.kind)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:
        """A name for each column: "sentenceencoder0", "sentenceencoder1", ..."""
        names = [f"{type(self).__name__.lower()}{i}" for i in range(self._loaded().dimension)]
        return np.asarray(names, dtype=object)

    def _loaded(self) -> Encoder:
        if self.kind not in ("passage", "query"):
            raise InputError(f"kind is 'passage' or 'query', not {shown(self.kind)}.")
        kept: tuple[Any, Encoder] | None = self.__dict__.get("_kept")
        if kept is None or kept[0] is not self.encoder:  # set_params may have named another one since
            self._kept = kept = (self.encoder, get_encoder(self.encoder))
        return kept[1]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_kept"}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


def _texts(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"The texts are a sequence of strings, not {shown(given)}.")
    texts = list(given)
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"Text {at} is not a string but {shown(text)}. Give a sequence of strings, (n,).")
    return texts
