"""The composition root: makes every piece of the settings, joins them, serves, and takes them down in order."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from autoglm._dataclasses import dataclass
from autoglm._version import __version__
from autoglm.model import PluginState
from autoglm_server import telemetry
from autoglm_server.clock import Clock, SystemClock
from autoglm_server.configuration import mask_uri
from autoglm_server.journal._lock import DirectoryLock
from autoglm_server.journal.artifacts import ArtifactStore, ArtifactStoreError, FolderArtifacts
from autoglm_server.journal.follow import Feed
from autoglm_server.journal.journal import Journal, JournalError, JournalLockedError
from autoglm_server.journal.memory import MemoryJournal
from autoglm_server.journal.sqlite import WAL_BYTES, SqliteJournal
from autoglm_server.loop import new_loop
from autoglm_server.planner.llm import LlmPlanner
from autoglm_server.planner.rules import RulesPlanner
from autoglm_server.planners import make_planners, make_writer
from autoglm_server.plugins.builtin import NAME as BUILTIN
from autoglm_server.plugins.host import Plugins
from autoglm_server.plugins.steps import StepFeed
from autoglm_server.presence import Presence, SocketFolder
from autoglm_server.reload import Reloader, plan_defaults
from autoglm_server.rest import Rest, release, share_heaps
from autoglm_server.scheduler.limits import Limits
from autoglm_server.scheduler.retention import Retention, Rules
from autoglm_server.scheduler.scheduler import Scheduler
from autoglm_server.scheduler.subplans import SubPlans
from autoglm_server.service import edge
from autoglm_server.service.admission import Admission
from autoglm_server.service.artifacts import Artifacts
from autoglm_server.service.health import Health
from autoglm_server.service.interceptors import Boundary
from autoglm_server.service.plans import About, PlanService
from autoglm_server.service.tools import ToolService
from autoglm_server.service.watch import Disconnects, Watches
from autoglm_server.tools.artifacts import described
from autoglm_server.tools.builtin.generate import GenerateProvider
from autoglm_server.tools.catalog import Catalog
from autoglm_server.tools.limits import ToolLimits
from autoglm_server.tools.providers import mcp, open_http, open_openapi, open_provider, open_shell, open_tables
from autoglm_server.tools.secrets import Secrets, Source
from autoglm_server.tools.wrappers import Wrappers

if TYPE_CHECKING:
    import grpc.aio

    from autoglm_server.planner.planner import Planner
    from autoglm_server.settings import Settings
    from autoglm_server.tools.artifacts import Sinks
    from autoglm_server.tools.tool import Provider

EXIT_USAGE: Final = 2
"""The server cannot start as it was told to."""
EXIT_JOURNAL: Final = 70
"""The journal failed for good; the next start recovers. (EX_SOFTWARE)"""
EXIT_HELD: Final = 75
"""An embedded server found its data directory held by another. (EX_TEMPFAIL)"""
GARBAGE_THRESHOLDS: Final = 25_000, 3, 10
"""How many more objects there are when garbage is looked for: with the interpreter's 700 each call's own are looked through
once while it is under way, and they go by themselves. These are those of some 500 calls, a few MB."""
STOP_SECONDS: Final = 2.0
"""How long calls that are answered at once may take to end, after everything else has."""
SIGNAL_REPEAT_SECONDS: Final = 1.0
"""Signals that come this soon after the first are the same wish: GNU ``timeout`` signals a process and then its group."""
IDLE_LOOKS: Final = 10
"""How often, within the time an embedded server stays idle, it looks whether it still is."""

_log = logging.getLogger(__name__)


SWITCH_SECONDS = 0.001
"""How long the loop's thread keeps the interpreter when another asks for it. The journal's thread asks for it several times in
each commit; with Python's own 5 ms a commit took up to 0.17 s on a busy server."""


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""

    def __init__(self, message: str, status: int = EXIT_USAGE) -> None:
        """Carry the exit status."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Embedded:
    """How an embedded server is started: ``fingerprint`` tells the settings of the client that did."""

    fingerprint: str = ""


def serve(settings: Settings, *, embedded: Embedded | None = None, read: Callable[[], Settings] | None = None) -> int:
    """Serve until told to stop; gives the exit status. ``read`` loads the configuration again, at SIGHUP.

    Raises:
        StartError: it cannot start.
    """
    telemetry.configure(settings.log)
    sys.setswitchinterval(SWITCH_SECONDS)
    share_heaps()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(Application(settings, embedded=embedded, read=read).run())


class Application:
    """One server, from its start to its end."""

    def __init__(
        self,
        settings: Settings,
        *,
        embedded: Embedded | None = None,
        clock: Clock | None = None,
        read: Callable[[], Settings] | None = None,
    ) -> None:
        """Nothing is made before :meth:`run`. ``read`` loads the configuration again."""
        self._settings = settings
        self._read = read
        self._embedded = embedded
        self._clock = clock or SystemClock()
        self._subplans = SubPlans()
        self._stopping = asyncio.Event()
        self._status = 0
        self._signalled: float | None = None  # when the first signal to end came
        self.address = ""
        """Where it listens, once it does."""
        self.ready = asyncio.Event()
        """Set when it is SERVING."""

    def stop(self, status: int = 0) -> None:
        """Begin to end; the first status other than 0 stays."""
        self._status = self._status or status
        self._stopping.set()

    async def run(self) -> int:
        """Start, serve, end in order; gives the exit status.

        Raises:
            StartError: it cannot start.
        """
        async with AsyncExitStack() as stack:
            journal = make_journal(self._settings)
            feed = Feed(journal)
            await self._open(journal, stack)
            plugins = await self._load_plugins(stack)
            providers, catalog = await self._start_catalog(plugins, stack)
            artifacts = Artifacts(await open_artifacts(self._settings, stack), self._settings.limits)
            scheduler = make_scheduler(
                self._settings,
                journal,
                feed,
                catalog,
                self._clock,
                plugins.planners(),
                artifacts.sink,
                subplans=self._subplans,
            )
            stack.push_async_callback(close_planners, scheduler)
            parts = _Parts(
                settings=self._settings,
                journal=journal,
                feed=feed,
                catalog=catalog,
                scheduler=scheduler,
                artifacts=artifacts,
                clock=self._clock,
                plugins=plugins,
            )
            self._bind(parts.server, stack)
            journal.on_health = lambda: self._on_health(parts)
            plugins.follow(StepFeed(feed, scheduler.get, plugins.listeners))
            await scheduler.start()
            stack.push_async_callback(scheduler.stop)
            await parts.server.start()
            stack.push_async_callback(parts.server.stop, None)
            self._announce(parts, stack)

            async with parts.disconnects, asyncio.TaskGroup() as beside:
                warming = warm_planner(self._settings, scheduler)
                retention = make_retention(self._settings, journal, feed, self._clock, artifacts.store)
                works = (
                    self._live(parts, providers),
                    sweep(artifacts.store, journal),
                    *([] if retention.rules.none else [retention.run()]),
                    self._rest(parts).run(),
                    *warming,
                )
                live = [beside.create_task(work) for work in works]
                await self._until_stopped(parts)
                for task in live:
                    task.cancel()

                await parts.drain(self._settings.server.drain if not journal.failure else timedelta(0))

        _log.info("ended", extra={"status": self._status})
        return self._status

    # --- start

    async def _open(self, journal: Journal, stack: AsyncExitStack) -> None:
        """Take the data directory, and open the journal."""
        try:
            if self._settings.journal.url:  # else the journal's own lock is the one on the data directory
                stack.callback(DirectoryLock(self._settings.data_dir, "an AutoGLM server").release)

            await journal.open()
        except JournalError as error:
            held = isinstance(error, JournalLockedError) and self._embedded is not None
            raise StartError(str(error), EXIT_HELD if held else EXIT_USAGE) from error

        stack.push_async_callback(journal.close)

    async def _load_plugins(self, stack: AsyncExitStack) -> Plugins:
        """Load the plugins; of these, only the server's own must not fail."""
        plugins = await stack.enter_async_context(Plugins(self._settings.workspace_dir))
        await plugins.keep(await plugins.prepare(self._settings.plugins))

        for plugin in plugins.told({}):
            if plugin.name == BUILTIN and plugin.state is PluginState.FAILED:
                raise StartError(f"the tools cannot be set up: {plugin.reason}")

        return plugins

    async def _start_catalog(self, plugins: Plugins, stack: AsyncExitStack) -> tuple[dict[str, Provider], Catalog]:
        try:
            settings = self._settings
            secrets = make_secrets(settings)
            self._open_provider = functools.partial(open_configured, secrets)
            self._fixed = [
                *open_http(settings.http),
                *open_tables(settings.table, settings.workspace_dir),
                *open_shell(settings.shell, settings.workspace_dir),
                *open_generate(settings),
                self._subplans,
            ]
            providers = {name: self._open_provider(settings, name, uri) for name, uri in settings.providers.items()}
            catalog = make_catalog(settings, [*plugins.providers(), *self._fixed, *providers.values()], secrets)
            await catalog.start()
        except (ValueError, OSError) as error:
            told = str(error)

            for uri in self._settings.providers.values():  # it may hold a password, and goes to the log
                told = told.replace(uri, mask_uri(uri))

            raise StartError(f"the tools cannot be set up: {told}") from error

        stack.push_async_callback(catalog.stop)
        return providers, catalog

    def _bind(self, server: grpc.aio.Server, stack: AsyncExitStack) -> None:
        if self._embedded is not None:
            folder = SocketFolder(self._settings.data_dir)
            stack.callback(folder.remove)
            self.address = folder.address
            bind(server, self.address)
        else:
            host, port = self._settings.server.host, self._settings.server.port
            host = f"[{host}]" if ":" in host and not host.startswith("[") else host
            self.address = f"{host}:{bind(server, f'{host}:{port}')}"

    def _announce(self, parts: _Parts, stack: AsyncExitStack) -> None:
        """Say that this server serves: to health checks, to clients of the data directory, and in the log."""
        loop = asyncio.get_running_loop()

        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread, or not this system
                loop.add_signal_handler(number, self._on_signal, number)

        gc.set_threshold(*GARBAGE_THRESHOLDS)
        gc.freeze()
        self._on_health(parts)
        presence = Presence(
            address=reachable(self.address),
            pid=os.getpid(),
            version=__version__,
            fingerprint=self._embedded.fingerprint if self._embedded else "",
            started=self._clock.now().isoformat(timespec="seconds"),
            embedded=self._embedded is not None,
        )

        try:
            presence.write(self._settings.data_dir)
        except OSError as error:
            raise StartError(f"cannot write {self._settings.data_dir / 'server.json'}: {error.strerror}") from error

        stack.callback(presence.remove, self._settings.data_dir)
        _log.info(
            "listening on %s",
            self.address,
            extra={"version": __version__, "data_dir": str(self._settings.data_dir)},
        )
        self.ready.set()

    # --- while it serves

    def _on_signal(self, number: signal.Signals) -> None:
        now = self._clock.monotonic()

        if self._signalled is None:
            self._signalled = now
            _log.info("%s: draining", number.name)
            self.stop()
        elif now - self._signalled >= SIGNAL_REPEAT_SECONDS:
            _log.warning("a second %s: ending now", number.name)
            os._exit(128 + number)

    def _on_health(self, parts: _Parts) -> None:
        """Serve while the journal takes events; end when it failed for good."""
        journal = parts.journal
        parts.health.set(serving=not (journal.stalled or journal.damaged) and journal.failure is None)
        parts.scheduler.journal_health_changed()

        if journal.failure is not None:
            _log.error("the journal failed; ending, the next start recovers: %s", journal.failure)
            self.stop(EXIT_JOURNAL)
        elif journal.damaged:
            _log.error("the journal is only read from now on: %s", journal.damaged)
            parts.feed.wake()
        elif journal.stalled:
            _log.error("the journal cannot be written to, nothing new is accepted: %s", journal.stalled)

    async def _live(self, parts: _Parts, providers: dict[str, Provider]) -> None:
        """Tell plugins that the server serves, and read the configuration again whenever SIGHUP asks for it."""
        reloader = Reloader(
            self._settings,
            self._read or (lambda: self._settings),
            plugins=parts.plugins,
            catalog=parts.catalog,
            scheduler=parts.scheduler,
            providers=providers,
            fixed=self._fixed,
            open_provider=self._open_provider,
            on_change=parts.changed,
        )

        if hasattr(signal, "SIGHUP"):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.ask)

        await parts.plugins.start(reachable(self.address))
        await reloader.run()

    def _rest(self, parts: _Parts) -> Rest:
        """Make what gives memory back when no call comes and no plan goes on."""
        return Rest(lambda: parts.admission.calls, lambda: parts.scheduler.busy, (parts.feed.rest, release))

    async def _until_stopped(self, parts: _Parts) -> None:
        if self._embedded is None:
            await self._stopping.wait()
            return

        idle = self._settings.server.idle.total_seconds()
        quiet_since, calls = self._clock.monotonic(), parts.boundary.calls

        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(idle / IDLE_LOOKS):
                    await self._stopping.wait()

            now, before, calls = self._clock.monotonic(), calls, parts.boundary.calls

            if parts.boundary.active or calls != before or parts.scheduler.busy:
                quiet_since = now
            elif now - quiet_since >= idle:
                _log.info("nobody is attached and nothing can make progress: ending")
                return


class _Parts:
    """What serves, joined."""

    def __init__(
        self,
        *,
        settings: Settings,
        journal: Journal,
        feed: Feed,
        catalog: Catalog,
        scheduler: Scheduler,
        artifacts: Artifacts,
        clock: Clock,
        plugins: Plugins,
    ) -> None:
        self.journal = journal
        self.artifacts = artifacts
        self.scheduler = scheduler
        self.catalog = catalog
        self.plugins = plugins
        self._clock = clock
        self.feed = feed
        self.disconnects = Disconnects(scheduler)
        self.health = Health(Watches(settings.limits))
        # A full disk is another refusal, and says so.
        self.admission = Admission(
            settings.limits,
            lambda: 0.0 if journal.stalled else journal.delay,
            turn=scheduler.turns.ask_new,
            behind=lambda: scheduler.turns.wait,
            busy=lambda: scheduler.progressing,
        )
        self.boundary = Boundary(
            clock=clock,
            timeout=settings.server.timeout,
            response_bytes=settings.limits.response_bytes,
            admission=self.admission,
        )
        self._plans = PlanService(
            plans=scheduler,
            journal=journal,
            feed=feed,
            watches=Watches(settings.limits),
            disconnects=self.disconnects,
            artifacts=artifacts,
            admission=self.admission,
            limits=settings.limits,
            about=self._about(settings),
            kept=settings.retention.plans,
        )
        self._tools = ToolService(
            catalog=catalog,
            artifacts=artifacts,
            server_id=journal.journal_id,
            limits=settings.limits,
            timeout=settings.plan.step_timeout,
        )
        self.server = edge.build(
            plans=self._plans,
            tools=self._tools,
            health=self.health,
            boundary=self.boundary,
            calls_per_connection=settings.limits.calls_per_connection,
        )

    def changed(self, settings: Settings) -> None:
        """Take over what the edge goes by of a new configuration."""
        self._tools.timeout = settings.plan.step_timeout
        self._plans.about = self._about(settings)

    def _about(self, settings: Settings) -> About:
        return About(
            __version__,
            settings.planner.kind,
            tuple(f"planner.{name}" for name in self.scheduler.planners),
            lambda: self.plugins.told(self.catalog.refused),
        )

    async def drain(self, limit: timedelta) -> None:
        """Take nothing new, end the watches with where to resume, let calls of tools end, close the connections."""
        end = self._clock.monotonic() + limit.total_seconds()
        self.health.drain()
        self.disconnects.drain()
        self.feed.drain()
        self.artifacts.drain()
        await self.scheduler.drain(limit.total_seconds())
        left = end - self._clock.monotonic() if self._tools.active else 0.0
        await self.server.stop(max(left, STOP_SECONDS))


# --- the pieces


def make_journal(settings: Settings) -> Journal:
    """Make the journal that the settings name.

    Raises:
        StartError: there is no such kind of journal.
    """
    kind, _, rest = settings.journal.url.partition(":")

    match kind:
        case "":
            return SqliteJournal(settings.data_dir, wal_bytes=WAL_BYTES)
        case "memory":
            return MemoryJournal()
        case "sqlite" if rest.startswith("///"):
            return SqliteJournal(rest.removeprefix("//"), wal_bytes=WAL_BYTES)
        case _:
            url = mask_uri(settings.journal.url)
            raise StartError(f"journal.url {url!r} is not known: write sqlite:///FOLDER, memory:, or leave it empty")


async def open_artifacts(settings: Settings, stack: AsyncExitStack) -> ArtifactStore:
    """Open the store of files: beside the journal, or, of a journal in memory, in a folder that goes with the server.

    Raises:
        StartError: it cannot be opened.
    """
    kind, _, rest = settings.journal.url.partition(":")
    try:
        if kind == "memory":
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="autoglm-", ignore_cleanup_errors=True)))
        else:
            folder = Path(rest.removeprefix("//")) if kind else settings.data_dir

        limits = settings.limits
        store = FolderArtifacts(
            folder / "artifacts",
            file_bytes=limits.artifact,
            plan_bytes=limits.plan_artifacts_bytes,
            durable=kind != "memory",
        )
        await store.open()
    except OSError as error:
        raise StartError(f"the files of results cannot be kept: {error}") from error

    stack.push_async_callback(store.close)
    return store


async def sweep(artifacts: ArtifactStore, journal: Journal) -> None:
    """Remove the files that a crash left of plans which the journal does not have."""

    async def known(plan_id: str) -> bool:
        return await journal.get_row(plan_id) is not None

    try:
        await artifacts.sweep(known)
    except (ArtifactStoreError, JournalError) as error:
        _log.warning("files that nobody has could not be removed: %s", error)


def make_retention(
    settings: Settings, journal: Journal, feed: Feed, clock: Clock, artifacts: ArtifactStore
) -> Retention:
    """Make what removes finished plans."""
    kept = settings.retention
    rules = Rules(events=kept.events, plans=kept.plans, max_plans=kept.max_plans)
    return Retention(journal, feed, clock, rules, artifacts=artifacts)


def open_configured(secrets: Secrets, settings: Settings, name: str, uri: str) -> Provider:
    """Open a provider, at the start or when the configuration is read again.

    Raises:
        ValueError, OSError: it cannot be opened.
    """
    scheme, _, rest = uri.partition(":")
    if scheme == "openapi" and rest:
        return open_openapi(name, rest, settings.openapi.get(name), secrets)

    if scheme in mcp.SCHEMES and rest:
        return mcp.open_mcp(name, uri, secrets.expand)

    return open_provider(name, uri)


def open_generate(settings: Settings) -> list[Provider]:
    """Open the provider of ``llm.generate``, if a model is configured."""
    writer = make_writer(settings.planner)
    return [GenerateProvider(writer, settings.planner.timeout)] if writer is not None else []


def make_catalog(settings: Settings, providers: Sequence[Provider], secrets: Secrets) -> Catalog:
    """Make the catalog of the tools of ``providers``, with what the configuration puts around them.

    Raises:
        ValueError: two providers have the same name.
    """
    limits = settings.limits
    return Catalog(
        providers,
        limits=ToolLimits(
            arguments_bytes=limits.arguments,
            output_bytes=limits.output,
            depth=limits.json_depth,
            provider_wait=settings.plan.provider_wait.total_seconds(),
        ),
        wrappers=Wrappers(settings.tools),
        secrets=secrets,
    )


def make_secrets(settings: Settings) -> Secrets:
    """Read the secrets, and keep them out of the log from now on.

    Raises:
        ValueError: the name of one is none.
    """
    secrets = Secrets({name: Source(secret.source, secret.tools) for name, secret in settings.secrets.items()})
    secrets.load()
    telemetry.hide(secrets.without)
    return secrets


def make_scheduler(
    settings: Settings,
    journal: Journal,
    feed: Feed,
    catalog: Catalog,
    clock: Clock,
    planners_of_plugins: Mapping[str, Planner],
    artifacts: Sinks = described,
    *,
    subplans: SubPlans | None = None,
) -> Scheduler:
    """Make the scheduler and its planners.

    Raises:
        StartError: the planner is not there, or cannot be used.
    """
    try:
        planners = make_planners(settings.planner, plugins=planners_of_plugins)
    except ValueError as error:
        raise StartError(str(error)) from None

    plan, limits = settings.plan, settings.limits
    return Scheduler(
        journal=journal,
        feed=feed,
        catalog=catalog,
        planners=planners,
        clock=clock,
        jitter=random.random,
        defaults=plan_defaults(settings),
        artifacts=artifacts,
        subplans=subplans,
        limits=Limits(
            steps=limits.steps,
            open_plans=limits.open_plans,
            running_plans=settings.scheduler.max_running_plans,
            running_calls=settings.scheduler.max_running_calls,
            events=limits.events,
            plan_depth=limits.plan_depth,
            arguments_bytes=limits.arguments,
            answer_bytes=limits.answer,
            step_timeout=plan.step_timeout.total_seconds(),
            round_timeout=settings.planner.timeout.total_seconds(),
            cancel_grace=settings.scheduler.cancel_grace.total_seconds(),
        ),
    )


def warm_planner(settings: Settings, scheduler: Scheduler) -> list[Coroutine[Any, Any, None]]:
    """Give what makes the planner of plans that name none ready, if that takes long and can be done ahead."""
    planner = scheduler.planners.get(settings.planner.kind)
    return [planner.warm()] if isinstance(planner, LlmPlanner | RulesPlanner) else []


async def close_planners(scheduler: Scheduler) -> None:
    """Close what planners hold open, when no plan uses them any more."""
    for planner in scheduler.planners.values():
        if isinstance(planner, LlmPlanner):
            await planner.close()


# --- addresses


_REFUSED: Final = "the transport refused it; look above in the log"


def bind(server: grpc.aio.Server, address: str) -> int:
    """Listen there; gives the port (1 for a Unix socket).

    Raises:
        StartError: it is in use, or not an address of this machine.
    """
    if not address.startswith("unix:") and (why := _why(address)):  # before the transport fills the log with its own
        raise StartError(f"cannot listen on {address}: {why}")

    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}: {_why(address) or _REFUSED}") from error

    if not port:
        raise StartError(f"cannot listen on {address}: {_why(address) or _REFUSED}")

    return port


def _why(address: str) -> str:
    """Find out why an address cannot be bound, "" if it can be: the transport only says that it cannot."""
    host, _, port = address.rpartition(":")

    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except socket.gaierror:
        return f"{host} is no address of this machine; choose one with --host"
    except ValueError:
        return "it is no address"

    why = ""

    for family, kind, protocol, _, where in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
        except OSError as error:
            why = _told(error, host)
        else:
            return ""  # one is enough: localhost has an address of IPv6 too, also where there is no IPv6

    return why


def _told(error: OSError, host: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use; stop who has it, or choose another with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; choose one with --host"
        case errno.EACCES:
            return "ports below 1024 need privileges; choose another with --port"
        case _:
            return str(error.strerror)


def reachable(address: str) -> str:
    """Give the address by which a client on this machine reaches a server that listens on all addresses."""
    host, _, port = address.rpartition(":")
    return {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host) + f":{port}"  # noqa: S104 - compared, not bound
