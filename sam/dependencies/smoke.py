"""Imports every library of the layer and makes it do something; run by layer.py with the layer alone on the path.

`python -S -s -P smoke.py LAYER_PYTHON_DIR` exits 0, or with the traceback of what does not work. It must not import
anything of the project.
"""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import importlib
import importlib.metadata
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

LAYER = Path(sys.argv[1]).resolve()
scratch = tempfile.TemporaryDirectory()
os.environ["MPLBACKEND"] = "Agg"
os.environ["MPLCONFIGDIR"] = scratch.name
for font_list in LAYER.glob("matplotlib/mpl-data/fontlist-*.json"):
    (Path(scratch.name) / font_list.name).write_bytes(font_list.read_bytes())


def numpy() -> None:
    import numpy as np
    import numpy.f2py
    import numpy.testing

    matrix = np.random.default_rng(1).normal(size=(20, 20))
    left, values, right = np.linalg.svd(matrix)
    np.testing.assert_allclose(left @ np.diag(values) @ right, matrix)
    assert abs(np.fft.ifft(np.fft.fft(matrix)) - matrix).max() < 1e-12
    np.linalg.eigh(matrix @ matrix.T)


def pandas() -> None:
    import pandas as pd
    import pandas.testing

    frame = pd.DataFrame({"day": pd.date_range("2026-01-01", periods=60, tz="Europe/Zurich"), "x": range(60)})
    text = frame.to_csv(index=False)
    pandas.testing.assert_series_equal(pd.read_csv(io.StringIO(text))["x"], frame["x"])
    assert frame.groupby(frame["day"].dt.month)["x"].sum().iloc[0] == sum(range(31))
    assert frame.merge(frame, on="x").pivot_table(values="x", index="day_x").size == 60
    frame.to_json()
    frame.describe().to_html()


def scipy() -> None:
    import scipy.stats
    from scipy import (
        fft,
        integrate,
        interpolate,
        linalg,
        ndimage,
        optimize,
        signal,
        sparse,
        spatial,
        special,
    )
    from scipy import io as scipy_io
    from scipy.cluster import hierarchy

    assert optimize.minimize(lambda x: (x[0] - 3) ** 2, [0.0]).x[0] - 3 < 1e-4
    assert optimize.linprog([1], bounds=[(2, None)]).x[0] == 2
    assert scipy.stats.ttest_ind([1, 2, 3, 4], [5, 6, 7, 9]).pvalue < 0.05
    assert abs(scipy.stats.norm.cdf(0) - 0.5) < 1e-12
    assert abs(integrate.quad(lambda x: x, 0, 1)[0] - 0.5) < 1e-9
    interpolate.CubicSpline([0, 1, 2], [0, 1, 4])
    linalg.lu(sparse.eye(4).toarray())
    signal.butter(2, 0.2)
    spatial.KDTree([[0, 0], [1, 1]]).query([0, 1])
    hierarchy.linkage([[0.0], [1.0], [5.0]])
    assert special.gamma(5) == 24
    ndimage.gaussian_filter([[1.0, 2.0], [3.0, 4.0]], 1)
    fft.dct([1.0, 2.0])
    scipy_io.mmwrite(io.BytesIO(), sparse.eye(2))


def sklearn() -> None:
    from sklearn import cluster, datasets, decomposition, linear_model, model_selection, neighbors, svm
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    samples, labels = datasets.load_iris(return_X_y=True)
    forest = RandomForestClassifier(n_estimators=10, random_state=1)
    assert model_selection.cross_val_score(forest, samples, labels).mean() > 0.9
    assert make_pipeline(StandardScaler(), svm.SVC()).fit(samples, labels).score(samples, labels) > 0.9
    HistGradientBoostingClassifier(max_iter=5).fit(samples, labels)
    cluster.KMeans(3, random_state=1).fit(samples)
    decomposition.PCA(2).fit_transform(samples)
    neighbors.KNeighborsClassifier().fit(samples, labels)
    linear_model.LogisticRegression(max_iter=500).fit(samples, labels)
    repr(forest)
    forest._repr_html_()


def matplotlib() -> None:
    import matplotlib.animation  # noqa: F401
    import matplotlib.pyplot as plt
    from mpl_toolkits.mplot3d import Axes3D  # noqa: F401

    figure, axes = plt.subplots(subplot_kw={"projection": "3d"})
    axes.plot([0, 1], [0, 1], [0, 1], label="α ≥ β $\\sqrt{2}$")
    figure.legend()
    for kind in ("png", "svg", "pdf", "ps", "jpg", "webp"):
        file = io.BytesIO()
        figure.savefig(file, format=kind)
        assert file.tell() > 500, kind
    plt.close("all")


def matplotlib_takes_the_list_it_was_given() -> None:
    written = sorted(path.name for path in Path(scratch.name).glob("fontlist-*.json"))
    shipped = sorted(path.name for path in LAYER.glob("matplotlib/mpl-data/fontlist-*.json"))
    assert shipped, "no font list in the layer"
    assert written == shipped
    for name in shipped:
        ours, theirs = Path(scratch.name, name).read_bytes(), (LAYER / "matplotlib/mpl-data" / name).read_bytes()
        assert ours == theirs, "matplotlib built a font list of its own"


def seaborn() -> None:
    import matplotlib.pyplot as plt
    import seaborn as sns
    import seaborn.objects as so

    sns.set_theme()
    sns.heatmap([[1, 2], [3, 4]]).figure.savefig(io.BytesIO())
    plt.close("all")
    sns.kdeplot(x=[1.0, 2.0, 2.5, 4.0])
    sns.regplot(x=[1.0, 2.0, 3.0], y=[1.0, 2.0, 4.0])
    so.Plot(x=[1, 2], y=[1, 2]).add(so.Line()).save(io.BytesIO())


def pillow() -> None:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (40, 40))
    ImageDraw.Draw(picture).text((1, 1), "a", font=ImageFont.load_default())
    picture.save(io.BytesIO(), "JPEG")


def pydantic() -> None:
    from pydantic import BaseModel, EmailStr, Field, ValidationError  # noqa: F401

    class Point(BaseModel):
        x: int = Field(description="to the right")

    assert Point.model_validate_json('{"x": 1}').model_json_schema()["properties"]["x"]["type"] == "integer"
    try:
        Point.model_validate({"x": "a"})
    except ValidationError:
        return
    raise AssertionError("no validation")


def http() -> None:
    import httpx
    import requests
    import uvicorn
    from fastapi import FastAPI

    requests.Request("GET", "https://example.org/", params={"a": "b"}).prepare()
    assert Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).is_file()
    uvicorn.Config(FastAPI())
    client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(204)))
    assert client.get("https://example.org/").status_code == 204


def protocol() -> None:
    import jsonschema
    import mangum
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    jsonschema.Draft202012Validator({"type": "integer"}).validate(1)
    StreamableHTTPSessionManager(app=Server("smoke"), stateless=True)
    mangum.Mangum(Server("smoke"), lifespan="off")


def everything_is_listed_and_from_here() -> None:
    names = {str(d.metadata["Name"]).lower() for d in importlib.metadata.distributions()}
    wanted = {"numpy", "pandas", "matplotlib", "scipy", "scikit-learn", "seaborn", "pydantic", "requests", "httpx"}
    assert wanted <= names, f"no metadata of {sorted(wanted - names)}"
    for name in (
        "numpy",
        "pandas",
        "scipy",
        "sklearn",
        "matplotlib",
        "seaborn",
        "pydantic",
        "requests",
        "mcp",
        "fastapi",
    ):
        file = importlib.import_module(name).__file__ or ""
        assert Path(file).is_relative_to(LAYER), f"{name} is from {file}"
        assert file.endswith(".pyc"), f"{name} is not compiled"


USES: tuple[Callable[[], None], ...] = (
    numpy, pandas, scipy, sklearn, matplotlib, matplotlib_takes_the_list_it_was_given, seaborn, pillow, pydantic,
    http, protocol, everything_is_listed_and_from_here,
)  # fmt: skip

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)  # the PostScript backend tells of transparency
for use in USES:
    use()
