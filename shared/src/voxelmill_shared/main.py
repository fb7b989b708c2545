"""One service as a process of its own: settings, adapters, signals, exit codes."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError

from voxelmill_shared import logs
from voxelmill_shared.errors import BrokerUnavailableError, TransientError, UnfitDependencyError, VoxelmillError
from voxelmill_shared.health import PortTakenError, joined, serve
from voxelmill_shared.parts import Parts, open_parts
from voxelmill_shared.settings import SharedSettings
from voxelmill_shared.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxelmill_shared.service import Service

log = structlog.get_logger("voxelmill")
SettingsT = TypeVar("SettingsT", bound=SharedSettings)

EXIT_USAGE = 2
EXIT_UNREACHABLE = 3


def read_settings(settings_type: type[SettingsT], command: str) -> SettingsT:
    """Read the settings from the environment, or end the process with one clear line and exit code 2."""
    try:
        return settings_type()
    except (ValidationError, SettingsError) as error:
        sys.exit(_usage(command, f"{wrong_settings(error)[0]}; set it right and start again"))


def wrong_settings(error: ValidationError | SettingsError) -> list[str]:
    """Name each variable that a settings class refused, and the reason."""
    if isinstance(error, ValidationError):
        return [
            f"VOXELMILL_{str(found['loc'][0] if found['loc'] else '*').upper()}:"
            f" {found['msg'].removeprefix('Value error, ')}"
            for found in error.errors(include_url=False, include_input=False)
        ]
    # A value that should be JSON and is not: only the text tells which.
    field = re.search(r'field "(\w+)"', str(error))
    return [f"VOXELMILL_{field[1].upper()}: Input should be JSON, as [1, 5]" if field else str(error)]


def _usage(command: str, line: str) -> int:
    sys.stderr.write(f"{command}: {line}\n")
    return EXIT_USAGE


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def spare_the_collector() -> None:
    """Tell the garbage collector what it need not look at: modules and parts stay until the process ends.

    A message makes and drops some hundred objects that refer to each other in no circle, so the collector is also asked
    to look less often than after every 700. Both together are a tenth of the runtime's time for a message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def run_service(
    build: Callable[[Parts, SettingsT], Service], settings: SettingsT, stop: asyncio.Event | None = None
) -> None:
    """Build a service from its settings and run it until a signal (or `stop`), then drain."""
    stop = stop or stop_on_signals()
    async with open_parts(settings) as parts:
        service = build(parts, settings)
        worker = Worker(
            service,
            parts.transport,
            ladder=settings.waits(),
            grace=timedelta(seconds=settings.grace_seconds),
            progress_seconds=settings.progress_seconds,
        )

        async def consuming() -> None:
            if not worker.consuming.is_set():
                raise BrokerUnavailableError("not taking messages")

        checks = joined(
            {"broker": parts.transport.check, "consuming": consuming, **service.checks}, worker.circuits.checks()
        )
        async with serve(service.name, checks, settings.host, settings.port, service.routes) as port:
            log.info("serving", service=service.name, host=settings.host, port=port)
            spare_the_collector()
            await worker.run(stop)
    log.info("stopped", service=service.name)


def main(build: Callable[[Parts, SettingsT], Service], settings_type: type[SettingsT], command: str) -> None:
    """Be the process of one service.

    Exit code 0 after a drain, 2 for wrong settings, 3 for a dependency out of reach or unfit.
    """
    settings = read_settings(settings_type, command)
    try:
        logs.configure(settings.log_level)
    except ValueError as error:
        sys.exit(_usage(command, f"VOXELMILL_LOG_LEVEL: {error}"))
    logs.tell_of_the_end()
    try:
        asyncio.run(run_service(build, settings))
    except (ValueError, PortTakenError) as error:
        sys.exit(_usage(command, str(error)))
    except TransientError as error:
        sys.stderr.write(f"{command}: {error}; see that it runs and is reachable, then start again\n")
        sys.exit(EXIT_UNREACHABLE)
    except UnfitDependencyError as error:
        sys.stderr.write(f"{command}: {error}\n")
        sys.exit(EXIT_UNREACHABLE)
    except VoxelmillError as error:
        sys.stderr.write(f"{command}: {error}\n")
        sys.exit(1)
