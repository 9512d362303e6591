"""A small process that forks the members, so that twenty of them share one interpreter's memory.

`up` starts it as a fresh interpreter (a fork of `up` itself would carry everything that `up` loads, and could not
be made again once threads run). It loads the member daemon once, freezes what it loaded, and forks a child for each
request. Requests and reports are JSON datagrams on a SOCK_SEQPACKET pair: they never mix, whoever sends.

Life and death: the zygote dies with `up`, every child with the zygote (PR_SET_PDEATHSIG), at once, even by kill -9.
All stay in the process group of `up`, and ignore SIGINT, since Ctrl-C reaches the whole group but `up` alone decides
in which order things end.

requests  {"op": "member", "child": N, "name": ID, "log": F, "config": {...}}      fields of DaemonConfig
          {"op": "exec", "child": N, "name": S, "log": F|null, "argv": [...]}      descriptors to inherit as SCM_RIGHTS
          {"op": "signal", "child": N, "signal": S}
reports   {"event": "hello"} {"event": "started", "child", "pid"} {"event": "ready", "child", "address"}
          {"event": "failed", "child", "error"} {"event": "exited", "child", "status"}
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO, cast

from fungistor.node.bounded_log import BoundedLog, open_log
from fungistor.node.process import DATAGRAM_BYTES_MAX, die_with, set_name
from fungistor.zdb.daemon import DaemonConfig, run

DESCRIPTORS_MAX = 16

Message = dict[str, object]


def main(argv: Sequence[str]) -> int:
    """Serve requests on the socket whose descriptor and owner are the arguments, until its other end closes."""
    descriptor, owner = int(argv[0]), int(argv[1])
    if not die_with(owner):
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a signal to the group drains `up`, which then closes the socket
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    set_name("fungistor-fork")
    gc.collect()
    gc.freeze()  # or the first collection in each child would copy every page that it looks at
    with socket.socket(fileno=descriptor) as link:
        return _Zygote(link).serve()


class _Zygote:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._pid = os.getpid()
        self._children: dict[int, tuple[int, int]] = {}  # child -> (pid, pidfd)

    def serve(self) -> int:
        self._report({"event": "hello"})
        while True:
            poll = select.poll()
            poll.register(self._link, select.POLLIN)
            for _, pidfd in self._children.values():
                poll.register(pidfd, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            for child, (pid, pidfd) in list(self._children.items()):
                if pidfd in ready:
                    self._bury(child, pid, pidfd)
            if self._link.fileno() in ready and not self._answer():
                return 0

    def _bury(self, child: int, pid: int, pidfd: int) -> None:
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        del self._children[child]
        self._report({"event": "exited", "child": child, "status": os.waitstatus_to_exitcode(status)})

    def _answer(self) -> bool:
        content, descriptors, _, _ = socket.recv_fds(self._link, DATAGRAM_BYTES_MAX, DESCRIPTORS_MAX)
        try:
            if not content:
                return False
            request: dict[str, object] = json.loads(content)
            child = cast("int", request["child"])
            if request["op"] == "signal":
                if child in self._children:
                    signal.pidfd_send_signal(self._children[child][1], cast("int", request["signal"]))
                return True
            try:
                pid = self._fork(child, request, descriptors)
            except OSError as error:
                self._report({"event": "failed", "child": child, "error": f"cannot fork: {error.strerror}"})
                self._report({"event": "exited", "child": child, "status": 1})
                return True
            self._children[child] = (pid, os.pidfd_open(pid))
            self._report({"event": "started", "child": child, "pid": pid})
            return True
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, child: int, request: Message, descriptors: Sequence[int]) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            status = self._be_child(child, request, descriptors)
        except BaseException:  # noqa: BLE001  # a process ends here: all goes to its log, nothing may run on
            traceback.print_exc()
        finally:
            os._exit(status)

    def _be_child(self, child: int, request: Message, descriptors: Sequence[int]) -> int:
        if not die_with(self._pid):
            return 1
        name = cast("str", request["name"])
        set_name(f"fungistor-{name}")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = cast("str | None", request["log"])
        _redirect(log)
        keep = {self._link.fileno(), *descriptors} if request["op"] == "member" else set(descriptors)
        _close_all_but(keep)
        if request["op"] == "exec":
            return _execute(cast("list[str]", request["argv"]), descriptors)
        if log is not None:
            sys.stderr = cast("TextIO", BoundedLog(log))
            sys.stdout = sys.stderr
        try:
            config = DaemonConfig(**cast("dict[str, object]", request["config"]))  # type: ignore[arg-type]
            return run(config, ready=lambda address: self._ready(child, address))
        except Exception as error:
            # Reported before it ends, so that `up` can say why a member is down and not only that it is.
            self._report({"event": "failed", "child": child, "error": str(error) or type(error).__name__})
            raise

    def _ready(self, child: int, address: object) -> None:
        self._report({"event": "ready", "child": child, "address": str(address)})

    def _report(self, message: Message) -> None:
        try:
            self._link.send(json.dumps(message).encode())
        except (BrokenPipeError, ConnectionResetError):
            if os.getpid() == self._pid:
                raise SystemExit(0) from None  # `up` is gone, and with this process go its children
            raise


def _redirect(log: str | None) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    if log is not None:
        os.dup2(2, 1)
        open_log(log, 2)
        os.dup2(2, 1)


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError:  # the descriptor that listed the folder
                continue


def _execute(argv: list[str], descriptors: Sequence[int]) -> int:
    """Become another program. `{0}`, `{1}` ... in `argv` are the numbers of the descriptors given along."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    numbers = [str(descriptor) for descriptor in descriptors]
    words = [word.format(*numbers) if word.startswith("{") else word for word in argv]
    os.execv(words[0], words)  # noqa: S606  # a list of arguments, as everywhere


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
