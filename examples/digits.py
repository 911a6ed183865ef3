"""Search hyperparameters on scikit-learn's digits.  Needs no network; the accuracies are always the same."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from rain.client import Client, remote

SIZES = [32, 64, 128, 256]
DROPOUTS = [0.0, 0.2, 0.4, 0.6, 0.8]


@remote(auto_encode="pickle")
def load_digits(_ctx):
    from sklearn import datasets, model_selection

    images, labels = datasets.load_digits(return_X_y=True)
    return model_selection.train_test_split(images / 16.0, labels, test_size=0.3, random_state=0)


@remote(auto_encode="pickle")
def train_digits(_ctx, size, dropout, digits):
    import tensorflow as tf

    x_train, x_test, y_train, y_test = digits.load()
    tf.keras.utils.set_random_seed(1)

    model = tf.keras.models.Sequential(
        [
            tf.keras.layers.Dense(size, activation="relu"),
            tf.keras.layers.Dropout(dropout),
            tf.keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=5, verbose=False)
    return model.evaluate(x_test, y_test, verbose=False)[1]


client = Client("localhost", 7210)
session = client.new_session("digits", default=True)

digits = load_digits()
points = list(itertools.product(SIZES, DROPOUTS))
tasks = [
    train_digits(size, dropout, digits, name=f"digits size={size} dropout={dropout}")
    for size, dropout in points
]
for task in tasks:
    task.output.keep()
session.submit()

accuracies = []
for (size, dropout), task in zip(points, tasks, strict=True):
    accuracies.append(task.output.fetch().load())
    print(f"size={size:<3} dropout={dropout}: accuracy {accuracies[-1]:.3f}")

data = np.array(accuracies).reshape(len(SIZES), len(DROPOUTS))
fig, ax = plt.subplots()
ax.imshow(data)
ax.set(title="Accuracy on scikit-learn's digits", xlabel="dropout", ylabel="size of the hidden layer")
ax.set_xticks(range(len(DROPOUTS)), DROPOUTS)
ax.set_yticks(range(len(SIZES)), SIZES)
for (row, column), accuracy in np.ndenumerate(data):
    color = "w" if accuracy < data.mean() else "k"
    ax.text(column, row, f"{accuracy:.3f}", ha="center", va="center", color=color)
fig.tight_layout()
plt.show()
