"""What a test does to the operations of a store in memory: hold them, keep their answers, make them fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from kvsfs.errors import StoreError
from kvsfs.types import RecordKey


@dataclass(eq=False)
class Gate:
    """Where operations wait. Once opened it is open for good."""

    opened: trio.Event = field(default_factory=trio.Event)
    reached: trio.Event = field(default_factory=trio.Event)

    def open(self) -> None:
        self.opened.set()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.opened.wait()


@dataclass(eq=False)
class _Rule:
    """What happens to the next operation that fits; None fits every key."""

    operation: str
    key: str | None
    gate: Gate | None = None
    error: StoreError | None = None
    action: Callable[[], Awaitable[None]] | None = None

    def fits(self, operation: str, key: RecordKey | None) -> bool:
        return self.operation == operation and self.key in (None, key)


class Interference:
    """The hooks of a MemoryStoreCollection: each rule is used up by the first operation that fits it."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str | None]] = []
        """Each operation that began, with its key."""
        self.delay = 0.0
        """Seconds before each operation."""
        self.raised = 0
        """Errors raised so far."""
        self._gates: list[Gate] = []
        self._before: list[_Rule] = []
        self._after: list[_Rule] = []
        self._pieces: list[tuple[int, Gate | StoreError]] = []

    def hold(self, operation: str, key: str | None = None) -> Gate:
        """Let the next such operation wait before it does anything."""
        return self._gated(self._before, operation, key)

    def hold_answer(self, operation: str, key: str | None = None) -> Gate:
        """Let the next such operation do its work, and wait before it answers."""
        return self._gated(self._after, operation, key)

    def fail(self, operation: str, error: StoreError, key: str | None = None) -> None:
        """Make the next such operation raise, without any effect."""
        self._before.append(_Rule(operation, key, error=error))

    def lose_answer(self, operation: str, error: StoreError, key: str | None = None) -> None:
        """Let the next such operation do its work, and raise all the same."""
        self._after.append(_Rule(operation, key, error=error))

    def forgive(self, operation: str) -> None:
        """Forget failures of such operations."""
        self._before = [rule for rule in self._before if rule.operation != operation or rule.error is None]

    def answer(self, operation: str) -> None:
        """Forget answers of such operations that were to be lost."""
        self._after = [rule for rule in self._after if rule.operation != operation or rule.error is None]

    def meanwhile(self, operation: str, action: Callable[[], Awaitable[None]], *, after: bool) -> None:
        """Let something happen amid the next such operation: before it does its work, or after."""
        rules = self._after if after else self._before
        rules.append(_Rule(operation, None, action=action))

    def hold_piece(self, offset: int) -> Gate:
        """Stop the next body that gets to this offset, before the piece there."""
        gate = Gate()
        self._gates.append(gate)
        self._pieces.append((offset, gate))
        return gate

    def break_piece(self, offset: int, error: StoreError) -> None:
        """Break the next body that gets to this offset, before the piece there."""
        self._pieces.append((offset, error))

    def clear(self) -> None:
        """Forget all rules; what waits goes on."""
        self._before, self._after, self._pieces, self.delay = [], [], [], 0.0
        for gate in self._gates:
            gate.open()
        self._gates = []

    async def before(self, operation: str, key: RecordKey | None) -> None:
        self.log.append((operation, key))
        if self.delay:
            await trio.sleep(self.delay)
        await self._apply(self._before, operation, key)

    async def after(self, operation: str, key: RecordKey | None) -> None:
        await self._apply(self._after, operation, key)

    async def piece(self, _key: RecordKey, offset: int) -> None:
        rule = next((r for r in self._pieces if r[0] == offset), None)
        if rule is None:
            return
        self._pieces.remove(rule)
        if isinstance(rule[1], StoreError):
            self.raised += 1
            raise rule[1]
        await rule[1].pass_through()

    def _gated(self, rules: list[_Rule], operation: str, key: str | None) -> Gate:
        gate = Gate()
        self._gates.append(gate)
        rules.append(_Rule(operation, key, gate=gate))
        return gate

    async def _apply(self, rules: list[_Rule], operation: str, key: RecordKey | None) -> None:
        rule = next((r for r in rules if r.fits(operation, key)), None)
        if rule is None:
            return
        rules.remove(rule)
        if rule.gate is not None:
            await rule.gate.pass_through()
        if rule.action is not None:
            await rule.action()
        if rule.error is not None:
            self.raised += 1
            raise rule.error
