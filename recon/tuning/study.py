"""The trials of a search: optuna's study, kept in a journal that processes share and a stopped run goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from operators.errors import import_extra

from ..benchmark.sharing import claimed, cut_torn_line, locked
from ..errors import ConfigError, OutputError, ReconError
from ..io.lock import lock_file
from ..io.whole import writing
from .spaces import Range, Search

JOURNAL = "trials.jsonl"
Scores = dict[str, float]
"""The objective of one set of values, of each problem, by its name."""
OURS, REASON, PLACE, RECIPE = "scores", "reason", "place", "recipe"
"""Names under which the journal keeps what optuna does not."""


def optuna_library() -> Any:
    """The package ``optuna``, which says nothing but errors; raises `ConfigError` with its pip line."""
    optuna = import_extra("optuna", "tune", "Options are searched with", ConfigError, ("storages.journal",))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Trials:
    """The trials of the study ``name`` in ``out``: those that are there, and, by `fill`, those that are missing.

    Of tree-structured Parzen estimators, whose random numbers depend on ``seed`` and the trial's place alone. A trial
    belongs to one process while it is measured; that of a process that died is measured again. Raises
    `ConfigError` where optuna is missing, `OutputError` where the journal cannot be used.
    """

    def __init__(self, out: Path, name: str, search: Search, seed: int):
        self.optuna = optuna_library()
        self.out, self.name, self.seed = out, name, seed
        self.axes = {key: self.distribution(axis) for key, axis in search.axes()}
        path = out / JOURNAL
        with locked(path), writing(path, (OSError,)), open(path, "a+b", buffering=0) as file:
            cut_torn_line(file)
        journal = self.optuna.storages.journal
        lock = FileLock(lock_file(path))  # ends with its process
        try:
            self.study = self.optuna.create_study(
                storage=journal.JournalStorage(journal.JournalFileBackend(str(path), lock)),
                study_name=name,
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError, AssertionError) as error:  # of a line that is none of optuna's
            raise OutputError(
                f"{path} cannot be read.", f"It is no journal of trials: {error}.", "Choose another --out."
            ) from error

    def distribution(self, axis: Range | tuple[Any, ...]) -> Any:
        """What optuna calls an axis."""
        kinds = self.optuna.distributions
        if not isinstance(axis, Range):
            return kinds.CategoricalDistribution(axis)
        whole = isinstance(axis.low, int) and isinstance(axis.high, int)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(axis.low, axis.high, log=axis.log)

    def recipe(self, values: Mapping[str, Any], measure: Callable[[], Scores]) -> Scores:
        """The scores of the recipe, measured once; where its ``values`` lie in the search they are the first trial."""
        with locked(self.out / f"{self.name}-recipe"):
            if RECIPE not in self.study.user_attrs:
                scores = measure()
                if all(axis._contains(internal(axis, values[key])) for key, axis in self.axes.items()):
                    first = self.optuna.trial.create_trial(
                        params=dict(values),
                        distributions=self.axes,
                        value=mean(scores),
                        user_attrs={OURS: scores},
                    )
                    self.study.add_trial(first)
                self.study.set_user_attr(RECIPE, scores)
        return self.study.user_attrs[RECIPE]

    def done(self) -> dict[int, Any]:
        """The trials that are finished, by their place from 0; diverged ones too."""
        states = self.optuna.trial.TrialState
        found = self.study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
        return {trial.user_attrs[PLACE]: trial for trial in found if PLACE in trial.user_attrs}

    def fill(
        self, count: int, measure: Callable[[Mapping[str, Any]], Scores]
    ) -> Iterator[tuple[int, Any | None]]:
        """(place, trial) of each of ``count`` trials that was missing and is finished now.

        ``measure`` of the values of a trial gives its scores; a `ReconError` of its is a trial without any. None in the
        place of a trial that another process is measuring.
        """
        for place in range(count):
            if place in self.done():
                continue
            with claimed(self.out, f"{self.name}-{place}") as mine:
                if mine and place not in self.done():
                    self.one(place, measure)
            yield place, self.done().get(place)

    def one(self, place: int, measure: Callable[[Mapping[str, Any]], Scores]) -> None:
        """Measure the trial at ``place``."""
        states = self.optuna.trial.TrialState
        self.study.sampler = self.optuna.samplers.TPESampler(seed=(self.seed + 1) * 100_000 + place)
        trial = self.study.ask(self.axes)
        trial.set_user_attr(PLACE, place)
        try:
            scores = measure(trial.params)
        except ReconError as error:
            trial.set_user_attr(REASON, error.what)
            self.study.tell(trial, state=states.PRUNED)
        except BaseException:
            self.study.tell(trial, state=states.FAIL)
            raise
        else:
            trial.set_user_attr(OURS, scores)
            self.study.tell(trial, mean(scores))

    def best(self, count: int) -> Any | None:
        """Of the first ``count`` trials the one with the largest objective; None where all have diverged."""
        found = [trial for place, trial in self.done().items() if place < count and trial.value is not None]
        return max(found, key=lambda trial: trial.value, default=None)

    def scores(self, trial: Any) -> Scores:
        """The objective of a trial, of each problem."""
        return trial.user_attrs[OURS]


def internal(axis: Any, value: Any) -> float:
    """``value`` as optuna keeps it; NaN, which lies in no axis, for one that it cannot keep."""
    try:
        return axis.to_internal_repr(value)
    except ValueError:
        return float("nan")


def mean(scores: Scores) -> float:
    """The objective: the mean over the problems."""
    return sum(scores.values()) / len(scores)
