"""make data: prepare a data set and say what was found."""

from benchmark.checks import describe
from benchmark.study import Study, main


def data(study: Study, overrides: list[str]) -> None:
    """Prepare the study's data set and describe it."""
    print(describe(study, study.make_dataset().prepare()))


if __name__ == "__main__":
    main(data)
