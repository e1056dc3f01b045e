"""The verb `muonlab serve`."""

import errno
import socket
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

PORT = 8421
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    folder: Path = Path("runs"),
    *,
    port: int | None = None,
    host: str = LOCAL[0],
    token: str | None = None,
    is_opened: Annotated[bool, Parameter(name="--open", negative="")] = False,
) -> int:
    """Show the studies in a folder as a live page: progress, curves, failures, the verdict so far, reports.

    It only reads. The page is for this machine alone; another address takes a token.

    For example:

        muonlab serve runs

        muonlab serve runs --host 0.0.0.0 --token SOMETHING-LONG

    Parameters
    ----------
    folder
        A folder of studies, or one study's own.
    port
        Where it listens (default: 8421, or a free one where that is taken).
    host
        Address that it listens at.
    token
        What a reader has to know, at an address other than 127.0.0.1; at least eight characters.
    is_opened
        Open the page in a browser.
    """
    from muonlab.jobs.files import StudyError
    from muonlab.jobs.optional import package
    from muonlab.serve.app import make
    from muonlab.study.settings import UsageError

    if host not in LOCAL and len(token or "") < 8:
        raise UsageError(f"--host {host} lets other machines read; give a --token of at least eight characters too")
    if not folder.is_dir():
        raise StudyError(f"there is no folder {folder}; `muonlab run grokking out=DIR` makes a study in DIR")
    uvicorn = package("uvicorn", "muonlab[serve]", "muonlab serve")
    listener = _listener(host, port)
    app = make(folder, token, (*LOCAL, "[::1]") if host in LOCAL else ())
    place = f"[{host}]" if ":" in host else host
    address = f"http://{place}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
    print(f"{folder}: {address} (Ctrl-C ends it)", flush=True)
    if is_opened:
        import webbrowser

        webbrowser.open(address)
    # Pages that are open would keep it from ending. They are cut off, which uvicorn calls an error, and come back.
    settings = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(settings).run(sockets=[listener])
    except KeyboardInterrupt:
        print("", file=sys.stderr)
    return 0


def _listener(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens there; without a port, one at a free port where the usual one is taken."""
    from muonlab.study.settings import UsageError

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    reason = mend = ""
    for number in [PORT, 0] if port is None else [port]:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
            return listener
        except (OSError, OverflowError) as error:
            listener.close()
            reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
            is_name = isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
            mend = "--host, an address of this machine" if is_name else "--port"
    raise UsageError(f"cannot listen at {host}, port {PORT if port is None else port}: {reason}; give another {mend}")
