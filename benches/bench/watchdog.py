"""Ends a bench that does not end by itself, and says where everything stood."""

import atexit
import faulthandler
import os
import pathlib
import sys
import threading
import time

LOG_BYTES = 2000
EXIT_CODE = 3


def stand(process):
    """A line for each thread of a process: what it is called and does, and where in the kernel it waits."""
    lines = []
    for task in sorted(pathlib.Path(f"/proc/{process}/task").glob("*"), key=lambda path: int(path.name)):
        def read(name, task=task):
            try:
                return (task / name).read_text(errors="replace").strip()
            except OSError as error:
                return f"({error.strerror})"
        fields = read("stat").rpartition(")")[2].split()
        if len(fields) < 13:
            continue  # it has ended in the meantime
        stack = " < ".join(line.split()[-1] for line in read("stack").splitlines()[:6])
        lines.append(f"    {task.name} {read('comm'):16} {fields[0]} {fields[11]}+{fields[12]} ticks, waits in {read('wchan')}, "
                     f"syscall {read('syscall')}, stack {stack}")
    return "\n".join(lines) or "    is gone"


class Watchdog:
    """Watches the main thread, which says how long its next step may take. A step that takes longer ends the bench: its
    processes are shown and killed, and its threads' stacks printed."""

    def __init__(self):
        self.processes, self.deadline, self.step, self.has_bitten = [], float("inf"), "", False
        # The main thread may come to its end first, because what it waited for was killed.
        atexit.register(lambda: self.has_bitten and os._exit(EXIT_CODE))
        threading.Thread(target=self.watch, daemon=True).start()

    def add(self, name, process, log):
        """A child (subprocess.Popen) that is killed too, and the path of what it prints."""
        self.processes.append((name, process, pathlib.Path(log)))

    def expect(self, seconds, step):
        """The next step has begun and is over within these seconds."""
        self.deadline, self.step = time.monotonic() + seconds, f"{step} within {seconds:.0f} s"

    def watch(self):
        while time.monotonic() < self.deadline:
            time.sleep(0.2)
        self.has_bitten = True
        print(f"error: not over: {self.step}", file=sys.stderr)
        for name, process, log in self.processes:
            state = process.poll()
            print(f"{name} ({process.pid}) {'runs' if state is None else f'ended with {state}'}; its last words:\n"
                  f"{log.read_text(errors='replace')[-LOG_BYTES:]}\n  and its threads:\n{stand(process.pid)}", file=sys.stderr)
        print("this bench's threads:", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        for _, process, _ in self.processes:
            if process.poll() is None:
                process.kill()
        for name, process, _ in self.processes:
            for _ in range(50):
                if process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                print(f"{name} ({process.pid}) does not even die:\n{stand(process.pid)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(EXIT_CODE)
