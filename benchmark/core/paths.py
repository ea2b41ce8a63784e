"""Where the package, its configuration and its experiments are, in a checkout and in an installed wheel."""

from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent.parent
CHECKOUT_DIR = PACKAGE_DIR.parent  # the checkout; for an installed wheel, the folder of all packages


def conf_dir() -> Path:
    """The folder of the YAML files: next to the package in a checkout, inside it in an installed wheel."""
    return next(d for d in (PACKAGE_DIR / "conf", CHECKOUT_DIR / "conf") if (d / "config.yaml").exists())


def experiments_dir() -> Path:
    """The folder of the experiments: next to the package in a checkout, inside it in an installed wheel."""
    inside = PACKAGE_DIR / "experiments"
    return inside if inside.is_dir() else CHECKOUT_DIR / "experiments"
