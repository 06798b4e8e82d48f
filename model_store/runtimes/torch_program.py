"""The program of a `.pt2` file: steps, run one after the other.

images (n, 3, h, w) -> outputs, in the file's order

A run may write to neither weights nor images, so that no answer depends on earlier ones: a step that would refuses
the model, when it is read (`torch_graph.py`) or, where it reaches them through a view, when it is run.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (torch is an extra, and has no complete types)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from model_store.runtimes.torch_archive import refuse
from model_store.runtimes.torch_operators import Operator


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a run keeps one of its values; in an argument, that value."""

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """`results` is a Slot, None for what is not kept, or a list of these; `spent` is not needed after it."""

    operator: Operator
    arguments: list[Any]
    named: dict[str, Any]
    results: Any
    spent: tuple[Slot, ...] = ()

    def run(self, values: list[Any], kept: frozenset[int]) -> None:
        given = [_filled(argument, values) for argument in self.arguments]
        named = {name: _filled(argument, values) for name, argument in self.named.items()}
        if self.operator.in_place and _memory(given[0]) in kept:
            refuse_writing()
        _keep(self.results, self.operator.call(*given, **named), values)
        for slot in self.spent:
            values[slot.index] = None


class Program:
    """Weights are the values of the first slots; that of the images comes next."""

    def __init__(self, weights: list[Any], steps: list[Step], outputs: list[Slot], slots: int):
        self._weights = weights
        self._steps = _freeing(steps, len(weights), outputs)
        self._outputs = outputs
        self._made = slots - len(weights) - 1
        self._kept = frozenset(map(_memory, weights))

    def run(self, images: Any) -> list[Any]:
        """Safe to call from several threads at once."""
        values = [*self._weights, images, *[None] * self._made]
        kept = (self._kept | {_memory(images)}) - {0}  # of tensors without elements
        for step in self._steps:
            step.run(values, kept)
        return [values[slot.index] for slot in self._outputs]


def refuse_writing() -> NoReturn:
    refuse("it changes its own weights or its input (was it exported in training mode?)")


def _freeing(steps: list[Step], weights: int, outputs: list[Slot]) -> list[Step]:
    """Each value is let go after the last step that has to do with it, except weights and outputs."""
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


def _filled(argument: Any, values: list[Any]) -> Any:
    if isinstance(argument, Slot):
        return values[argument.index]
    if isinstance(argument, list):
        return [_filled(inner, values) for inner in cast(list[Any], argument)]
    return argument


def _keep(results: Any, outcome: Any, values: list[Any]) -> None:
    if isinstance(results, Slot):
        values[results.index] = outcome
    elif isinstance(results, list):
        for result, part in zip(cast(list[Any], results), outcome, strict=True):
            _keep(result, part, values)


def _memory(tensor: Any) -> int:
    """The same for all tensors that share it."""
    return tensor.untyped_storage().data_ptr()
