from rain.client import Client, remote
import tensorflow as tf

import itertools
import numpy as np
import matplotlib.pyplot as plt

SIZES = [32, 64, 128, 256]
DROPOUTS = [0.0, 0.2, 0.4, 0.6, 0.8]


@remote(auto_encode="pickle")
def load_mnist_data(ctx):
    return tf.keras.datasets.mnist.load_data()


@remote(auto_encode="pickle")
def train_mnist(ctx, size, dropout, mnist_data):
    (x_train, y_train), (x_test, y_test) = mnist_data.load()
    x_train, x_test = x_train / 255.0, x_test / 255.0

    model = tf.keras.models.Sequential([
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(size, activation=tf.nn.relu),
        tf.keras.layers.Dropout(dropout),
        tf.keras.layers.Dense(10, activation=tf.nn.softmax)
    ])

    model.compile(optimizer='adam',
                  loss='sparse_categorical_crossentropy',
                  metrics=['accuracy'])

    model.fit(x_train, y_train, epochs=5, verbose=False)
    result = model.evaluate(x_test, y_test, verbose=False)
    return result[1]


client = Client("localhost", 7210)
session = client.new_session("MNIST test", default=True)

mnist_data = load_mnist_data()

mnist_tasks = [
    train_mnist(size, dropout, mnist_data,
                name="mnist size={} dropout={}".format(size, dropout))
    for size, dropout in itertools.product(SIZES, DROPOUTS)
]

for task in mnist_tasks:
    task.output.keep()

session.submit()

accuracies = [task.output.fetch().load() for task in mnist_tasks]


def make_heatmap(ax, data):
    data = np.array(data).reshape((len(SIZES), len(DROPOUTS)))

    im = ax.imshow(data)
    ax.set_yticklabels(SIZES)
    ax.set_xticklabels(DROPOUTS)
    ax.set_yticks(np.arange(len(SIZES)))
    ax.set_xticks(np.arange(len(DROPOUTS)))

    for j in range(len(DROPOUTS)):
        for i in range(len(SIZES)):
            text = ax.text(j, i, data[i, j],
                           ha="center", va="center", color="w")


fig, ax1 = plt.subplots()

make_heatmap(ax1, accuracies)

fig.tight_layout()
plt.show()
