"""Search for the best support vector machine, on two nodes on this machine, from Python."""

import rain_deploy


def search(costs, gammas):
    import matplotlib.pyplot as plt
    from rain.client import Client, remote

    @remote(auto_encode="pickle")
    def train(_ctx, cost, gamma):
        from sklearn import datasets, model_selection, svm

        images, labels = datasets.load_digits(return_X_y=True)
        return model_selection.cross_val_score(svm.SVC(C=cost, gamma=gamma), images / 16, labels, cv=3).mean()

    with Client("localhost", 7210).new_session("search") as session:
        points = [(cost, gamma) for cost in costs for gamma in gammas]
        tasks = [train(cost, gamma, name=f"train cost={cost} gamma={gamma}") for cost, gamma in points]
        for task in tasks:
            task.output.keep()
        session.submit()
        scores = [task.output.fetch().load() for task in tasks]

    plt.bar([f"{cost}, {gamma}" for cost, gamma in points], scores)
    plt.show()
    score, (cost, gamma) = max(zip(scores, points, strict=True))
    return {"score": score, "cost": cost, "gamma": gamma}


if __name__ == "__main__":
    rain_deploy.up(provider="local", nodes=2)
    result = rain_deploy.run(search, ([1, 4], [0.05, 0.5]))
    for row in rain_deploy.points().rows:
        if row.point:
            print(row.name, row.node, row.value)
    print("best:", result.value)
    print("figure:", *sorted((result.results_dir / "figures").glob("*.png")))
    rain_deploy.down()
