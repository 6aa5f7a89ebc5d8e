"""All experiments, and the folder they leave."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from hashmem.laboratory import attack, birthday, occupancy, probes, throughput
from hashmem.laboratory.experiment import Experiment, Sizes
from hashmem.laboratory.plots import draw

__all__ = ["EXPERIMENTS", "has_plots", "run", "write"]

EXPERIMENTS: dict[str, Callable[[Sizes], Experiment]] = {
    module.NAME: module.measure for module in (probes, occupancy, birthday, throughput, attack)
}


def run(sizes: Sizes | None = None, names: list[str] | None = None) -> Iterator[Experiment]:
    """Run the experiments of `names`, all by default, one after another at `sizes`.

    Deterministic but for times and random seeds. Raises `ValueError` for a name there is not.

    >>> [found.name for found in run(Sizes.quick(), ["occupancy"])]
    ['occupancy']
    """
    wanted = list(EXPERIMENTS) if names is None else names
    unknown = sorted(set(wanted) - set(EXPERIMENTS))
    if unknown:
        raise ValueError(
            f"no experiment is called {', '.join(unknown)}: there are {', '.join(EXPERIMENTS)}"
        )
    return (EXPERIMENTS[name](sizes or Sizes()) for name in wanted)


def has_plots() -> bool:
    """Tell whether matplotlib is there to draw with."""
    return find_spec("matplotlib") is not None


def write(experiment: Experiment, folder: Path) -> list[Path]:
    """Write CSV and, where matplotlib is there, a plot into `folder`: their paths."""
    paths = experiment.write(folder)
    if has_plots():
        paths.append(draw(experiment, folder))
    return paths
