"""Answers a program's questions on a terminal: terminal.py '[["prompt", "answer"], ...]' PROGRAM ARGUMENT...

Prints all that was shown, and ends as the program did.
"""

import json
import os
import pty
import signal
import sys


def main():
    script = json.loads(sys.argv[1])
    # Whoever waits for a prompt that never comes is ended.
    signal.alarm(20)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.argv[2], sys.argv[2:])
    seen = b""

    def more():
        try:
            return os.read(terminal, 4096)
        except OSError:
            return b""

    for prompt, answer in script:
        at = len(seen)
        while prompt.encode() not in seen[at:]:
            part = more()
            if not part:
                sys.exit(f"ended before {prompt!r}: {seen.decode()}")
            seen += part
        os.write(terminal, answer.encode() + b"\n")
    while part := more():
        seen += part
    sys.stdout.write(seen.decode())
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
