#!/usr/bin/env python3
"""Models that scikit-learn trains and skl2onnx writes: `quantd test` against what onnxruntime computes. ZipMap, a list of
maps, is compared as the matrix that quantd serves for it. Needs the packages of tests/requirements.txt. Not here:
HistGradientBoosting, whose lists of bools skl2onnx 1.20 writes where onnx 1.23 takes ints only.

    test_sklearn.py [part-of-a-name ...]"""
import os
import sys
import tempfile
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

try:
    import numpy as np
    import onnx
    import onnxruntime
    import skl2onnx
    import sklearn.cluster
    import sklearn.datasets
    import sklearn.ensemble
    import sklearn.impute
    import sklearn.linear_model
    import sklearn.neighbors
    import sklearn.neural_network
    import sklearn.pipeline
    import sklearn.preprocessing
    import sklearn.svm
    import sklearn.tree
except ImportError as error:
    print(f"SKIP: {error.name or error}: this test trains models with scikit-learn")
    sys.exit(77)

from test_contrib import judge, write  # noqa: E402

TOLERANCE = (1e-4, 1e-5)
LABELS = np.array(["setosa", "versicolor", "virginica"], dtype=object)


def flowers(classes=3, names=False):
    """Iris: 4 measures of 150 flowers."""
    x, y = sklearn.datasets.load_iris(return_X_y=True)
    keep = y < classes
    return x[keep].astype(np.float32), LABELS[y[keep]] if names else y[keep]


def sugar():
    x, y = sklearn.datasets.load_diabetes(return_X_y=True)
    return x.astype(np.float32), y.astype(np.float32)


def measured(model, data):
    """A trained model, and an input like what it was trained with: the same rows would lie on a margin (SVM)."""
    x, y = data
    noise = np.random.default_rng(5).normal(scale=.05 * x.std(), size=x.shape).astype(np.float32)
    return model.fit(x, y), {"x": x + noise}


def mixed():
    """Numbers that are scaled beside names that are one of many, then a forest: columns as inputs of their own."""
    from sklearn.compose import ColumnTransformer
    random = np.random.default_rng(3)
    table = {"size": random.normal(size=(200, 1)).astype(np.float32),
             "weight": random.normal(size=(200, 1)).astype(np.float32),
             "colour": random.choice(["red", "green", "blue"], size=(200, 1)).astype(object)}
    rows = np.concatenate([table["size"], table["weight"], table["colour"]], axis=1)
    y = np.where((table["size"][:, 0] > 0) ^ (table["colour"][:, 0] == "red"), "yes", "no")
    columns = ColumnTransformer([("numbers", sklearn.preprocessing.StandardScaler(), [0, 1]),
                                 ("names", sklearn.preprocessing.OneHotEncoder(handle_unknown="ignore"), [2])])
    model = sklearn.pipeline.make_pipeline(columns, sklearn.linear_model.LogisticRegression())
    return model.fit(rows, y), table


def holes():
    x, y = flowers()
    x[::7, 1] = np.nan
    model = sklearn.pipeline.make_pipeline(sklearn.impute.SimpleImputer(), sklearn.preprocessing.MinMaxScaler(),
                                           sklearn.preprocessing.Normalizer(), sklearn.linear_model.LogisticRegression())
    return model.fit(x, y), {"x": x}


def cases():
    from sklearn import ensemble, linear_model, neighbors, neural_network, preprocessing, svm, tree
    pipe = sklearn.pipeline.make_pipeline
    scaled = preprocessing.StandardScaler
    return {
        "logistic": lambda: measured(linear_model.LogisticRegression(max_iter=1000), flowers()),
        "logistic_two": lambda: measured(linear_model.LogisticRegression(), flowers(2)),
        "logistic_names": lambda: measured(linear_model.LogisticRegression(max_iter=1000), flowers(names=True)),
        "linear": lambda: measured(linear_model.LinearRegression(), sugar()),
        "ridge": lambda: measured(linear_model.Ridge(), sugar()),
        "sgd": lambda: measured(linear_model.SGDClassifier(random_state=1), flowers()),
        "tree": lambda: measured(tree.DecisionTreeClassifier(random_state=1), flowers()),
        "tree_names_two": lambda: measured(tree.DecisionTreeClassifier(random_state=1), flowers(2, True)),
        "tree_regression": lambda: measured(tree.DecisionTreeRegressor(random_state=1), sugar()),
        "forest": lambda: measured(ensemble.RandomForestClassifier(20, random_state=1), flowers()),
        "forest_two": lambda: measured(ensemble.RandomForestClassifier(20, random_state=1), flowers(2)),
        "forest_names": lambda: measured(ensemble.RandomForestClassifier(20, random_state=1), flowers(names=True)),
        "forest_regression": lambda: measured(ensemble.RandomForestRegressor(20, random_state=1), sugar()),
        "extra_trees": lambda: measured(ensemble.ExtraTreesClassifier(20, random_state=1), flowers()),
        "boosting": lambda: measured(ensemble.GradientBoostingClassifier(n_estimators=20, random_state=1), flowers()),
        "boosting_two": lambda: measured(ensemble.GradientBoostingClassifier(n_estimators=20, random_state=1), flowers(2)),
        "boosting_regression": lambda: measured(ensemble.GradientBoostingRegressor(n_estimators=20, random_state=1),
                                                sugar()),
        "ada_boost": lambda: measured(ensemble.AdaBoostClassifier(n_estimators=5, random_state=1), flowers()),
        "isolation_forest": lambda: measured(ensemble.IsolationForest(n_estimators=10, random_state=1), flowers()),
        "svc_rbf": lambda: measured(svm.SVC(probability=False), flowers()),
        "svc_two": lambda: measured(svm.SVC(probability=False, kernel="poly"), flowers(2)),
        "svc_probability": lambda: measured(svm.SVC(probability=True, random_state=1), flowers()),
        "svc_linear_names": lambda: measured(svm.SVC(kernel="linear", probability=True, random_state=1),
                                             flowers(names=True)),
        "linear_svc": lambda: measured(svm.LinearSVC(random_state=1), flowers()),
        "nu_svc": lambda: measured(svm.NuSVC(nu=.2, kernel="sigmoid", gamma=.01), flowers()),
        "svr": lambda: measured(svm.SVR(), sugar()),
        "one_class": lambda: measured(svm.OneClassSVM(), flowers()),
        "mlp": lambda: measured(pipe(scaled(), neural_network.MLPClassifier((20, 10), max_iter=60, random_state=1)),
                                flowers()),
        "mlp_regression": lambda: measured(neural_network.MLPRegressor(hidden_layer_sizes=(20,), max_iter=60, random_state=1), sugar()),
        "k_means": lambda: measured(sklearn.cluster.KMeans(3, n_init=2, random_state=1), flowers()),
        "neighbours": lambda: measured(neighbors.KNeighborsClassifier(3), flowers()),
        "pipeline": lambda: measured(pipe(scaled(), preprocessing.PolynomialFeatures(2),
                                          linear_model.LogisticRegression(max_iter=1000)), flowers()),
        "robust_tree": lambda: measured(pipe(preprocessing.RobustScaler(), preprocessing.Binarizer(threshold=.2),
                                             tree.DecisionTreeClassifier(random_state=1)), flowers()),
        "mixed": mixed,
        "holes": holes,
    }


TYPES = {"float32": skl2onnx.common.data_types.FloatTensorType, "object": skl2onnx.common.data_types.StringTensorType}


def export(model, inputs):
    types = [(name, TYPES[array.dtype.name]([None, array.shape[1]])) for name, array in inputs.items()]
    return skl2onnx.convert_sklearn(model, initial_types=types, target_opset={"": 18, "ai.onnx.ml": 3})


def as_matrix(maps):
    """The dense form of ZipMap's output: labels in the model's order, which is the order of the keys."""
    if not isinstance(maps, list):
        return maps
    return np.array([list(row.values()) for row in maps], np.float32)


def run(name, case, root):
    """None, or what is wrong."""
    warnings.simplefilter("ignore")
    trained, inputs = case()
    model = export(trained, inputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = [as_matrix(r) for r in session.run(None, inputs)]
    folder = os.path.join(root, name)
    write(folder, model, inputs, results)
    good, lines = judge(folder, TOLERANCE)
    return None if good else " | ".join(lines[:2])


def main():
    parts, failed, passed = sys.argv[1:], 0, 0
    onnxruntime.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory(prefix="sklearn-") as root:
        for name, case in cases().items():
            if parts and not any(p in name for p in parts):
                continue
            try:
                wrong = run(name, case, root)
            except Exception as error:  # each package has its own classes
                wrong = f"{type(error).__name__}: {str(error)[:300]}"
            passed += wrong is None
            failed += wrong is not None
            if wrong:
                print(f"FAIL {name}: {wrong}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
