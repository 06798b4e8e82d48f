"""Run the program of a `.pt2` file, step by step.

images (n, 3, h, w) -> outputs, in the file's order

A run must not write to weights or images, so that no result depends on earlier ones. A step that would do so is
rejected when the program is read (`graph.py`) or, if it writes through a view, when it is run.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (torch is an extra, and has no complete types)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from model_store.runtimes.torch.archive import refuse
from model_store.runtimes.torch.operators import Operator


@dataclass(frozen=True, slots=True)
class Slot:
    """Index of one value of a run; in an argument, that value."""

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operator call. `results` is a Slot, None for a value that is not kept, or a list of these. `spent` are the
    slots that no later step needs.
    """

    operator: Operator
    arguments: list[Any]
    named: dict[str, Any]
    results: Any
    spent: tuple[Slot, ...] = ()

    def run(self, values: list[Any], kept: frozenset[int]) -> None:
        given = [_substituted(argument, values) for argument in self.arguments]
        named = {name: _substituted(argument, values) for name, argument in self.named.items()}
        if self.operator.in_place and _memory(given[0]) in kept:
            refuse_writing()
        _keep(self.results, self.operator.call(*given, **named), values)
        for slot in self.spent:
            values[slot.index] = None


class Program:
    """Steps of a program. The first slots hold the weights, the next one the images."""

    def __init__(self, weights: list[Any], steps: list[Step], outputs: list[Slot], slots: int):
        self._weights = weights
        self._steps = _with_spent_slots(steps, len(weights), outputs)
        self._outputs = outputs
        self._made = slots - len(weights) - 1
        self._kept = frozenset(map(_memory, weights))

    def run(self, images: Any) -> list[Any]:
        """Return the outputs for a batch of images. Thread-safe."""
        values = [*self._weights, images, *[None] * self._made]
        kept = (self._kept | {_memory(images)}) - {0}  # 0: tensors without elements
        for step in self._steps:
            step.run(values, kept)
        return [values[slot.index] for slot in self._outputs]


def refuse_writing() -> NoReturn:
    refuse("it changes its own weights or its input (was it exported in training mode?)")


def _with_spent_slots(steps: list[Step], weights: int, outputs: list[Slot]) -> list[Step]:
    """Return steps that free each value, except weights and outputs, after the last step that uses it."""
    last = {
        slot: number
        for number, step in enumerate(steps)
        for slot in _slots([step.arguments, *step.named.values(), step.results])
        if slot.index >= weights and slot not in outputs
    }
    spent: list[list[Slot]] = [[] for _ in steps]
    for slot, number in last.items():
        spent[number].append(slot)
    return [replace(step, spent=tuple(own)) for step, own in zip(steps, spent, strict=True)]


def _slots(value: Any) -> Iterator[Slot]:
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, list):
        for inner in cast(list[Any], value):
            yield from _slots(inner)


def _substituted(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, Slot):
        return values[argument.index]
    if isinstance(argument, list):
        return [_substituted(inner, values) for inner in cast(list[Any], argument)]
    return argument


def _keep(results: Any, outcome: Any, values: list[Any]) -> None:
    if isinstance(results, Slot):
        values[results.index] = outcome
    elif isinstance(results, list):
        for result, part in zip(cast(list[Any], results), outcome, strict=True):
            _keep(result, part, values)


def _memory(tensor: Any) -> int:
    """Return the address of a tensor's memory, equal for all tensors that share it."""
    return tensor.untyped_storage().data_ptr()
